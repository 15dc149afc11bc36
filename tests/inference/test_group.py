import torch

from mllm_npu.inference.group import begin_group, go_on
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions


def make_rows(fakes, model, prompts):
    block = (fakes.BEGIN, *fakes.SLOTS[: fakes.NUM_SLOTS], fakes.END)
    return [
        LiveRow(
            number=number,
            options=GenerationOptions(),
            prompt_LD=model.embed(torch.tensor(list(prompt.encode()))),
            room=50,
            seed=0,
            decode=fakes.ByteProcessor().decode_text,
            image_block=block,
            stop_ids=frozenset({fakes.EOS}),
        )
        for number, prompt in enumerate(prompts)
    ]


def test_a_group_begins_with_the_whole_history(fakes):
    model = fakes.BigramLanguageModel({})
    rows = make_rows(fakes, model, ["abc", "xyz"])
    for row in rows:
        row.take(ord("!"))
    group = begin_group(rows, model)
    assert group.pending_BLD.argmax(-1).tolist() == [list(b"abc!"), list(b"xyz!")]
    assert group.cache == []
    assert not group.draws


def test_writing_rows_are_fed_their_last_token(fakes):
    model = fakes.BigramLanguageModel({})
    group = begin_group(rows := make_rows(fakes, model, ["a", "b", "c"]), model)
    rows[0].take(ord("x"))
    rows[1].take(fakes.EOS)
    rows[2].take(ord("z"))
    [same] = go_on(group, model)
    assert same is group
    assert [row is None for row in group.rows] == [False, True, False]
    assert group.pending_BLD.argmax(-1)[[0, 2]].tolist() == [[ord("x")], [ord("z")]]


def test_when_all_live_rows_draw_they_stay_together(fakes):
    model = fakes.BigramLanguageModel({})
    group = begin_group(rows := make_rows(fakes, model, ["a", "b", "c"]), model)
    for row, token in zip(rows, (fakes.BEGIN, fakes.EOS, fakes.BEGIN), strict=True):
        row.take(token)
    [same] = go_on(group, model)
    assert same is group
    assert group.draws
    assert group.pending_BLD.argmax(-1).tolist() == [list(rows[0].image_block)] * 3


def test_when_some_rows_draw_they_leave_with_their_history(fakes):
    model = fakes.BigramLanguageModel({})
    group = begin_group(rows := make_rows(fakes, model, ["ab", "cd"]), model)
    rows[0].take(ord("x"))
    rows[1].take(fakes.BEGIN)
    split, rest = go_on(group, model)
    assert (split.draws, rest.draws) == (True, False)
    assert split.rows == [rows[1]]
    assert split.cache is not rest.cache
    assert split.pending_BLD.argmax(-1).tolist() == [[*b"cd", *rows[1].image_block]]
    assert rest.rows == [rows[0], None]


def test_nothing_is_left_when_all_have_ended(fakes):
    model = fakes.BigramLanguageModel({})
    group = begin_group(rows := make_rows(fakes, model, ["a"]), model)
    rows[0].take(fakes.EOS)
    assert go_on(group, model) == []
