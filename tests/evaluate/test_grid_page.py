import base64
import io

import pytest
from PIL import Image

from mllm_npu.evaluate.grid_page import picture_grid, spread_evenly
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.processing.conversation import ask


@pytest.fixture
def result(fakes):
    """Two pictures of each prompt; the words asked for are the prompt."""

    def make(num_prompts, num_pictures=2, *, size=(16, 16), asked=None):
        records = [
            fakes.make_record(
                "x",
                "x" if picture else "y",
                prompt * num_pictures + picture,
                pictures=[fakes.noise_picture(prompt, size)],
                facts={"prompt": f"prompt {prompt}", "prompt_name": str(prompt)},
                conversation=asked or ask(f"Draw {prompt}"),
            )
            for prompt in range(num_prompts)
            for picture in range(num_pictures)
        ]
        return TaskResult(task=fakes.EchoTask([]), records=tuple(records))

    return make


def open_tile(tile):
    head, data = tile.source.split(",")
    return head, Image.open(io.BytesIO(base64.b64decode(data)))


def test_each_prompt_has_a_row_with_its_pictures_and_what_was_found(result):
    grid = picture_grid(result(3))
    assert (grid.title, grid.note) == (
        "Says it again",
        "3 rows, all there are. Pictures in a red frame have score 0.",
    )
    assert grid.shows_captions
    assert [row.label for row in grid.rows] == ["prompt 0", "prompt 1", "prompt 2"]
    for row in grid.rows:
        assert row.real == []
        assert [(tile.caption, tile.is_wrong) for tile in row.drawn] == [("y", True), ("x", False)]


def test_a_few_pixels_stay_as_they_are(result, fakes):
    [row] = picture_grid(result(1)).rows
    head, picture = open_tile(row.drawn[0])
    assert head == "data:image/png;base64"
    assert picture.tobytes() == fakes.noise_picture(0).tobytes()


def test_large_pictures_are_made_small(result):
    [row] = picture_grid(result(1, size=(800, 400))).rows
    head, picture = open_tile(row.drawn[0])
    assert head == "data:image/jpeg;base64"
    assert picture.size == (256, 128)


def test_a_big_run_is_thinned_evenly_and_says_so(result):
    grid = picture_grid(result(10, 3), most_rows=4, most_columns=2)
    assert [row.label for row in grid.rows] == [f"prompt {number}" for number in (0, 2, 5, 7)]
    assert {len(row.drawn) for row in grid.rows} == {2}
    assert grid.note == (
        "4 of 10 rows, at even distances and not picked. "
        "Of the 3 pictures of a prompt the first 2. "
        "Pictures in a red frame have score 0."
    )


def test_what_was_sent_stands_before_what_came_back(result, fakes):
    sent = fakes.noise_picture(77)
    grid = picture_grid(result(1, 1, asked=ask("photo.jpg", [sent])))
    assert grid.note.startswith("All there is. Pictures in a red frame")
    [tile] = grid.rows[0].real
    assert open_tile(tile)[1].tobytes() == sent.tobytes()


def test_the_true_picture_comes_before_what_was_sent(fakes):
    truth = fakes.noise_picture(5)
    record = fakes.make_record("x", "x", pictures=[fakes.noise_picture(1)], truth=truth)
    grid = picture_grid(TaskResult(task=fakes.EchoTask([]), records=(record,)))
    [row] = grid.rows
    assert grid.note == "All there is."
    assert open_tile(row.real[0])[1].tobytes() == truth.tobytes()
    assert row.label == "e0"


def test_a_task_without_pictures_has_no_grid(fakes):
    assert picture_grid(fakes.make_result(("a", "a"))) is None


def test_replies_without_a_picture_leave_their_place_out(result, fakes):
    made = result(1)
    empty = fakes.make_record(
        "x", "z", 9, facts={"prompt": "prompt 0", "prompt_name": "0"}, conversation=ask("Draw")
    )
    grid = picture_grid(TaskResult(task=made.task, records=(empty, *made.records)))
    assert len(grid.rows[0].drawn) == 2


def test_items_are_taken_at_even_distances():
    items = [[number] for number in range(7)]
    assert spread_evenly(items, 7) == items
    assert spread_evenly(items, 3) == [[0], [2], [4]]
