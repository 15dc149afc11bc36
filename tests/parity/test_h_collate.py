"""What the original's collate gives, in our packs: the same tokens, labels, pictures, unpadded."""

import pytest
import torch

from mllm_npu.batch import Sample
from mllm_npu.data.collate import BlankTile, collate

GOLDEN = "h_collate"
FUNCTION = "anyres_data_collate"
"""The one the original trains with; the others fail on ragged rows, or are the same."""
BLANK = BlankTile(tile_size=2, num_read_tokens=1, num_drawn_tokens=0, token_id=400)


def rows_of(result, pad):
    """Ids and labels of each row up to its padding."""
    ids, labels, mask = (
        torch.tensor(result[name]["data"]).long().view(result[name]["shape"])
        for name in ("input_ids", "labels", "attention_mask")
    )
    for row, marked in enumerate(mask.bool()):
        assert (ids[row][~marked] == pad).all()
        yield ids[row][marked], labels[row][marked]


def to_samples(result, pad):
    """The rows as samples of ours; each has the pictures the recorded lengths say."""
    counts = [int(n) for n in (result.get("images_patch_length") or {"data": []})["data"]]
    images = result.get("images") or {"shape": [0, 3, 2, 2], "data": []}
    tiles = torch.tensor(images["data"]).view(images["shape"]).to(torch.uint8)
    places = (result.get("patch_position") or {"data": []})["data"]
    positions = torch.tensor(places, dtype=torch.float32).view(-1, 2)
    rows = list(rows_of(result, pad))
    split = counts or [0] * len(rows)
    parts = zip(rows, tiles.split(split), positions.split(split), strict=True)
    return [
        Sample(
            input_ids=ids,
            labels=labels,
            tiles=cut,
            tile_positions=where,
            read_tiles=torch.arange(len(cut)),
            read_slots=torch.arange(len(cut))[:, None],
            draw_tiles=torch.empty(0, dtype=torch.int64),
            draw_slots=torch.empty(0, 0, dtype=torch.int64),
            source="recorded",
        )
        for (ids, labels), cut, where in parts
    ]


@pytest.mark.parametrize("name", ["equal-length", "ragged", "text-only"])
def test_rows_end_to_end_are_the_padded_rows(golden, deviation, name):
    _, meta = golden(GOLDEN)
    [case] = [c for c in meta["cases"] if (c["fn"], c["batch"]) == (FUNCTION, name)]
    result, pad = case["result"], meta["pad_token_id"]
    samples = to_samples(result, pad)
    batch = collate(samples, blank=BLANK)
    starts = (0, *batch.sequence_ends[:-1])
    for number, (ids, labels) in enumerate(rows_of(result, pad)):
        begin, end = starts[number], batch.sequence_ends[number]
        deviation(GOLDEN, batch.input_ids[begin:end], ids, atol=0)
        mine = batch.target_sequences == number
        expected = [(p + begin, t) for p, t in enumerate(labels[1:].tolist()) if t != -100]
        found = zip(
            batch.target_positions[mine].tolist(), batch.targets[mine].tolist(), strict=True
        )
        assert list(found) == expected
    if result.get("images"):
        images = torch.tensor(result["images"]["data"]).view(result["images"]["shape"])
        deviation(GOLDEN, batch.tiles[: len(images)], images, atol=0)
        places = torch.tensor(result["patch_position"]["data"]).view(-1, 2)
        deviation(GOLDEN, batch.tile_positions[: len(places)], places, atol=0)
    else:
        assert len(batch.tiles) == 1  # the blank one


def test_pictures_and_text_alone_go_into_one_pack_where_the_original_fails(golden):
    """Its keys are those of the first row of a batch."""
    _, meta = golden(GOLDEN)
    failed = [c for c in meta["cases"] if c["batch"] == "image+text-only"]
    assert failed
    assert all("KeyError" in case["error"] for case in failed)
    by_name = {c["batch"]: c["result"] for c in meta["cases"] if c["fn"] == FUNCTION}
    pad = meta["pad_token_id"]
    pictures = to_samples(by_name["ragged"], pad)
    texts = to_samples(by_name["text-only"], pad)
    batch = collate([pictures[0], texts[0]], blank=BLANK)
    assert batch.num_samples == 2
    assert len(batch.read_tiles) == len(pictures[0].tiles)
