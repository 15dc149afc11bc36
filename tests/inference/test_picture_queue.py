import pytest
import torch
from PIL import Image

from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_queue import PictureQueue


def make_row(*, seed=0, shown=None, **options):
    return LiveRow(
        number=seed,
        options=GenerationOptions(**options),
        room=99,
        seed=seed,
        decode=str,
        image_block=(1, 2, 3),
        stop_ids=frozenset(),
        shown=shown,
        num_prompt=1,
    )


def ask_for(queue, row, level=0.05):
    queue.add(row, torch.full((2, 3), level))
    row.end_picture()


@pytest.fixture
def make_queue(fakes):
    def make(*, takes_condition=False, max_batch=8):
        model = fakes.FakeModel({}, takes_condition=takes_condition)
        return PictureQueue(model, max_batch=max_batch)

    return make


def test_those_asked_for_alike_are_a_batch_and_the_oldest_is_in_it(make_queue):
    queue = make_queue(max_batch=2)
    rows = [make_row(image_steps=steps) for steps in (3, 5, 3, 3)]
    for row in rows:
        ask_for(queue, row)
    batches = []
    while len(queue):
        batches.append([rows.index(job.row) for job in queue.take()])
    assert batches == [[0, 2], [1], [3]]
    assert queue.take() == []


def test_a_batch_draws_what_each_alone_would(make_queue):
    queue = make_queue()
    rows = [make_row(seed=seed) for seed in (1, 2, 1)]
    for row in rows:
        ask_for(queue, row)
    batch = queue.take()
    queue.draw(batch)
    levels = [job.made.picture.getpixel((0, 0))[0] for job in batch]
    assert levels[0] == levels[2] != levels[1]
    assert batch[0].made.features.shape == (2, 3)
    assert batch[0].begun > 0


def test_a_picture_that_changes_another_is_drawn_after_it(make_queue):
    queue, shown = make_queue(takes_condition=True), Image.new("RGB", (2, 2), (90, 90, 90))
    row, other = make_row(shown=shown), make_row()
    for one in (row, row, other):
        ask_for(queue, one)
    first = queue.take()
    assert [(job.row, job.number) for job in first] == [(row, 0), (other, 0)]
    assert (first[0].shown, first[1].shown) == (shown, None)
    assert queue.take() == []
    queue.draw(first)
    [second] = queue.take()
    assert second.shown is first[0].made.picture


def test_without_a_picture_in_view_all_of_a_reply_are_drawn_together(make_queue):
    queue, row = make_queue(), make_row()
    ask_for(queue, row)
    ask_for(queue, row)
    assert [job.number for job in queue.take()] == [0, 1]


def test_what_nobody_waits_for_is_left_out(make_queue):
    queue, row, other = make_queue(takes_condition=True), make_row(), make_row()
    ask_for(queue, row)
    ask_for(queue, other)
    queue.forget(row)
    assert [job.row for job in queue.take()] == [other]
    queue.forget(other)
    assert queue._last_of == {}
