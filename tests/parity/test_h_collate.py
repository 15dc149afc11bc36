"""Collate against the original's: packed end to end here, padded to one length there.

A recorded row is compared up to its last token that is not padding. Batches that the original
cannot stack (samples of different lengths, with different numbers of tiles, some without
pictures) are packed like the others.
"""

import io
import json
from random import Random

import pytest
import torch
from PIL import Image

from mllm_npu.batch import IGNORED_LABEL, Sample
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.picture import Picture
from mllm_npu.errors import SkipSample

GOLDEN = "h_collate"
COLLATES = (
    "anyres_data_collate_old",
    "anyres_data_collate",
    "custom_collate",
    "mmc4_collate",
    "llava_collate",
)
PAD = 400
BLANK = BlankTile(tile_size=2, num_read_tokens=1, num_drawn_tokens=1, token_id=PAD)


def sample(num_tokens, num_tiles, *, draws=False):
    """What was recorded, and slots: tile n takes token n. The recorded samples have no slots."""
    ids = torch.arange(1, num_tokens + 1)
    tiles, none = torch.arange(num_tiles), torch.arange(0)
    read, drawn = (none, tiles) if draws else (tiles, none)
    return Sample(
        input_ids=ids,
        labels=ids.clone(),
        tiles=torch.full((num_tiles, 3, 2, 2), num_tiles, dtype=torch.uint8),
        tile_positions=torch.full((num_tiles, 2), 0.5),
        read_tiles=read,
        read_slots=read[:, None],
        draw_tiles=drawn,
        draw_slots=drawn[:, None],
        source="d",
    )


BATCHES = {
    "equal-length": [sample(6, 2), sample(6, 3, draws=True)],
    "ragged": [sample(6, 2), sample(4, 1, draws=True)],
    "image+text-only": [sample(6, 2), sample(6, 0)],
    "text-only": [sample(6, 0), sample(6, 0)],
}


def values(entry):
    return torch.tensor(entry["data"]).view(entry["shape"])


def recorded(golden, name, batch):
    cases = golden(GOLDEN)[1]["cases"]
    [case] = [case for case in cases if (case["fn"], case["batch"]) == (name, batch)]
    return case


def unpack(packed, values):
    """Cut a pack into its real sequences."""
    ends = packed.sequence_ends
    pairs = zip((0, *ends[:-1]), ends, packed.sources, strict=True)
    return [values[start:end] for start, end, source in pairs if source]


def labels_of(packed):
    """Labels at their own places; a pack keeps them at the places that predict them."""
    labels = torch.full_like(packed.input_ids, IGNORED_LABEL)
    return labels.index_copy(0, packed.target_positions + 1, packed.targets)


def marked(tiles, packed):
    """Which tiles of the real samples are read, or drawn."""
    num_tiles = sum(len(one.tiles) for one in packed)
    return torch.zeros(num_tiles + 1).index_fill(0, tiles, 1.0)[:num_tiles]


@pytest.mark.parametrize("name", COLLATES)
@pytest.mark.parametrize("batch", ["equal-length", "ragged", "text-only"])
def test_packs_hold_the_recorded_samples(golden, deviation, name, batch):
    case = recorded(golden, name, batch)
    result = case["result"]
    if result is None:  # stacked where it cannot be; the function it trains with can
        assert "stack expects each tensor to be equal size" in case["error"]
        result = recorded(golden, "anyres_data_collate", batch)["result"]
    packed = collate(BATCHES[batch], blank=BLANK)
    lengths = values(result["attention_mask"]).sum(1).long().tolist()
    ids, labels = (unpack(packed, part) for part in (packed.input_ids, labels_of(packed)))
    for row, length in enumerate(lengths):
        deviation(GOLDEN, ids[row], values(result["input_ids"])[row, :length], atol=0)
        # A label on a first token is never a target: nothing comes before it.
        deviation(GOLDEN, labels[row][1:], values(result["labels"])[row, 1:length], atol=0)
    check_tiles(packed, result, BATCHES[batch], deviation)


def check_tiles(packed, result, samples, deviation):
    if result["images"] is None:
        assert packed.num_drawn == 0
        assert len(packed.tiles) == 1
        return
    deviation(GOLDEN, packed.tiles, values(result["images"]), atol=0)
    deviation(GOLDEN, packed.tile_positions, values(result["patch_position"]), atol=0)
    for tiles, mask in (
        (packed.read_tiles, "embeds_cmp_mask"),
        (packed.draw_tiles, "embeds_gen_mask"),
    ):
        deviation(GOLDEN, marked(tiles, samples), values(result[mask]), atol=0, what=mask)
    tile_counts = values(result["images_patch_length"]).long().tolist()
    assert [len(one.tiles) for one in samples] == tile_counts
    assert set(packed.sources) == {result.get("dataset_name", "d")}


@pytest.mark.parametrize("batch", ["equal-length", "ragged", "text-only"])
def test_nothing_is_padded(golden, batch):
    """The rows of one recorded batch fill up with padding where its samples differ in length."""
    packed = collate(BATCHES[batch], blank=BLANK)
    num_real = sum(one.num_tokens for one in BATCHES[batch])
    num_blank = 2 if batch == "text-only" else 0
    assert packed.num_tokens == num_real + num_blank


@pytest.mark.parametrize("order", [1, -1])
def test_samples_with_and_without_pictures_share_a_pack(golden, order):
    """Defect 19: every one of the original's functions takes the keys of the first sample."""
    cases = [c for c in golden(GOLDEN)[1]["cases"] if c["batch"] == "image+text-only"]
    assert [case["error"] for case in cases] == ["KeyError: 'images_patch_length'"] * len(COLLATES)
    samples = BATCHES["image+text-only"][::order]
    packed = collate(samples, blank=BLANK)
    for found, one in zip(unpack(packed, packed.input_ids), samples, strict=True):
        assert found.tolist() == one.input_ids.tolist()
    assert packed.read_tiles.tolist() == [0, 1]
    first = 0 if order == 1 else 6
    assert packed.read_slots.flatten().tolist() == [first, first + 1]
    assert packed.tiles[:2].eq(2).all()


def test_blank_of_the_recorded_padding(golden):
    """What fills our blank sequence is what fills the original's rows."""
    assert golden(GOLDEN)[1]["pad_token_id"] == PAD


def encode_picture():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def row_of(item):
    """An item that the original's filter was given, as the row it comes from."""
    stated = json.loads(item["metadata"]) if "metadata" in item else {}
    caption = {"caption": item["text"]} if "text" in item else {}
    members = {"json": json.dumps(stated | caption).encode()}
    return Row(key="k", members=members | ({"png": encode_picture()} if "images" in item else {}))


def is_kept(task, row):
    try:
        task.to_conversation(row, Random(0))
    except SkipSample:
        return False
    return True


# Ours reads a stated "similarity" and no other spelling of it.


@pytest.mark.parametrize("number", range(10))
def test_rows_are_kept_and_left_out_as_recorded(golden, number):
    case = golden(GOLDEN)[1]["filters"][number]
    needs_text = case["kw"].get("assure_text", True)
    task = Caption(min_similarity=0.2) if needs_text else Picture()
    row = row_of(case["item"])
    if not case["item"].get("filter_flag", True):
        # The original's mark for a picture below its limits, which ours measures here.
        task = Caption(min_resolution=9)
    assert is_kept(task, row) == case["keep"]
