"""Rows on their way from the shard to the tokens, against the original's whole pipeline.

The original's rows are padded and batched; ours are compared sample by sample, unpadded. Which
rows are left out, and why, is compared as well.
"""

import io
import json
from random import Random

import pytest
import torch
from PIL import Image

from mllm_npu.data.index import read_rows
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import SkipSample
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn
from mllm_npu.processing.processor import Processor

GOLDEN = "n_pipeline"
CLIP = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
LIMITS = {"min_resolution": 40, "min_aspect_ratio": 0.2}
"""No least similarity: 0.1 was asked for, yet the recorded run keeps a row that states 0.05."""


@pytest.fixture
def processor(golden_tokenizer):
    def make(max_tokens=63):
        """The original drops what reaches its length, ours what exceeds it."""
        return Processor(
            tokenizer=golden_tokenizer("bpe"),
            any_resolution=AnyResolution(
                grids=["1x1", "1x2", "2x1", "2x2"], tile_size=56, repeat_single_tile=True
            ),
            chat_template=ChatTemplate(),
            num_read_tokens=4,
            num_drawn_tokens=4,
            max_tokens=max_tokens,
        )

    return make


def recorded(run):
    """Ids, labels and slots of every recorded row, unpadded; label of a first token apart."""
    for batch in run["batches"]:
        rows, length = batch["input_ids"]["shape"]
        for row in range(rows):
            here = slice(row * length, (row + 1) * length)
            ids, labels, mask, read, drawn = (
                batch[name]["data"][here]
                for name in (
                    "input_ids",
                    "labels",
                    "attention_mask",
                    "ids_cmp_mask",
                    "ids_gen_mask",
                )
            )
            kept = int(sum(mask))
            places = [n for slots in (read, drawn) for n, marked in enumerate(slots) if marked]
            yield ids[:kept], [-100, *labels[1:kept]], places


def encoded(sample):
    return (
        sample.input_ids.tolist(),
        [-100, *sample.labels[1:].tolist()],
        [*sample.read_slots.flatten().tolist(), *sample.draw_slots.flatten().tolist()],
    )


def run(rows, task, processor):
    """Samples of the rows that pass, by key, and why the others do not."""
    samples, reasons = {}, {}
    for row in rows:
        try:
            conversation = task.to_conversation(row, Random(0))
            samples[row.key] = encoded(processor.encode(conversation))
        except SkipSample as reason:
            reasons[row.key] = str(reason)
    return samples, reasons


def rows_of(shard, endings=(".jpg", ".json", ".txt")):
    """Rows of a shard; pictures under names the original does not read are left out."""
    for row in read_rows(shard):
        members = {k: v for k, v in row.members.items() if f".{k}" in endings}
        yield Row(key=row.key, members=members)


def check(found, expected, deviation):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == theirs
        deviation(GOLDEN, mine[0], theirs[0], atol=0)


def test_captions_that_are_read(golden, shared, processor, deviation):
    _, meta = golden(GOLDEN)
    shard = shared / "golden" / "fixtures" / "caption" / "00000.tar"
    task = Caption(draw_share=0.0, **LIMITS)
    samples, reasons = run(rows_of(shard), task, processor())
    expected = list(recorded(meta["runs"]["caption_json_cmp"]))
    check(list(samples.values()), expected, deviation)
    assert reasons["002"] == "picture too small"
    assert reasons["009"] == "picture too narrow"
    assert {"004", "006", "007", "008"} <= set(reasons)  # broken, orphan, bad json, no jpg


def test_a_stated_similarity_counts_where_it_is_asked_for(shared, processor):
    shard = shared / "golden" / "fixtures" / "caption" / "00000.tar"
    task = Caption(draw_share=0.0, min_similarity=0.1)
    _, reasons = run(rows_of(shard), task, processor())
    assert reasons["003"].startswith("similarity")


def test_pngs_are_read_where_the_original_loses_them(shared, processor):
    shard = shared / "golden" / "fixtures" / "caption" / "00000.tar"
    samples, _ = run(read_rows(shard), Caption(draw_share=0.0, **LIMITS), processor())
    assert "008" in samples


def test_captions_that_are_drawn(golden, shared, processor, deviation):
    """The original ends a drawn picture with a separator; the row's own text ends ours."""
    _, meta = golden(GOLDEN)
    shard = shared / "golden" / "fixtures" / "caption" / "00000.tar"
    samples, _ = run(rows_of(shard), Caption(draw_share=1.0, **LIMITS), processor())
    separator = processor().tokenizer.encode("\n", add_special_tokens=False)
    expected = []
    for ids, labels, places in recorded(meta["runs"]["caption_json_gen"]):
        assert ids[-1 - len(separator) : -1] == separator
        cut = [*range(len(ids) - 1 - len(separator)), len(ids) - 1]
        expected.append(([ids[n] for n in cut], [labels[n] for n in cut], places))
    check(list(samples.values()), expected, deviation)


def test_captions_as_text_files(golden, shared, processor, deviation):
    """The original reads a row's members in pairs of equal endings; every row counts here."""
    _, meta = golden(GOLDEN)
    shard = shared / "golden" / "fixtures" / "caption_txt" / "00000.tar"
    task = Caption(draw_share=0.0, **LIMITS)
    samples, _ = run(rows_of(shard, (".jpg", ".txt")), task, processor())
    first, second = recorded(meta["runs"]["caption_txt_cmp"])
    # The second file begins with a blank, which ours takes off.
    blank = processor().tokenizer.encode(" ", add_special_tokens=False)
    place = max(second[2]) + 2
    assert second[0][place : place + 1] == blank
    stripped = tuple(values[:place] + values[place + 1 :] for values in second[:2])
    check(list(samples.values()), [first, (*stripped, second[2])], deviation)


def test_ocr_rows(golden, shared, processor, deviation):
    """The original replaces questions by a prompt, empty here; ours keeps them."""
    _, meta = golden(GOLDEN)
    folder = shared / "golden" / "fixtures" / "ocr"
    found = []
    for line in (folder / "data" / "1.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
            picture = Image.open(io.BytesIO((folder / "img" / row["image"]).read_bytes()))
        except (ValueError, FileNotFoundError):
            continue  # an empty or broken line, or a picture that is not there
        turns = (
            Turn(role="document", parts=(ReadImage(picture=picture),)),
            Turn(role="document", parts=(Text(text=row["data"][1]),), learn=True),
        )
        found.append(encoded(processor().encode(Conversation(turns=turns))))
        members = {"json": json.dumps({"turns": row["data"]}).encode()}
        members["jpg"] = (folder / "img" / row["image"]).read_bytes()
        _keeps_the_question(Row(key="r", members=members), row, processor())
    check(found, list(recorded(meta["runs"]["ocr"])), deviation)


def _keeps_the_question(row, values, processor):
    try:
        talk = Ocr(chat=False).to_conversation(row, Random(0))
    except SkipSample:
        members = {"json": json.dumps({"data": values["data"]}).encode(), "jpg": row.members["jpg"]}
        talk = Ocr(chat=False).to_conversation(Row(key="r", members=members), Random(0))
    said = [part.text for turn in talk.turns for part in turn.parts if isinstance(part, Text)]
    assert said == values["data"]


def test_pure_texts(golden, shared, processor, deviation):
    """What is longer than the length is cut by the original and left out here."""
    _, meta = golden(GOLDEN)
    found = []
    for line in (shared / "golden" / "fixtures" / "text" / "1.jsonl").read_text().splitlines():
        row = Row(key="t", members={"json": line.encode()})
        try:
            conversation = PureText().to_conversation(row, Random(0))
            found.append(encoded(processor(16).encode(conversation)))
        except SkipSample:
            continue
    expected = [
        row for row in recorded(meta["runs"]["pure_text"]) if row[0][-1] == processor().eos_id
    ]
    check(found[: len(expected)], expected, deviation)


def test_a_text_that_is_too_long_is_left_out_whole(golden, processor, shared, deviation):
    """The original keeps its first 16 tokens, without an end; the tokens are the same."""
    lines = (shared / "golden" / "fixtures" / "text" / "1.jsonl").read_text().splitlines()
    row = Row(key="t", members={"json": lines[-1].encode()})
    cut = list(recorded(golden(GOLDEN)[1]["runs"]["pure_text"]))[1][0]
    talk = PureText().to_conversation(row, Random(0))
    with pytest.raises(SkipSample, match="longer than max_tokens"):
        processor(16).encode(talk)
    whole = processor(200).encode(talk).input_ids
    assert len(whole) > len(cut) == 16
    deviation(GOLDEN, whole[:16], cut, atol=0)


def page_row(*parts):
    """A page of texts and of pictures given by their sizes; the original's are pickles."""
    stated, members = [], {}
    for number, part in enumerate(parts):
        if isinstance(part, str):
            stated.append({"text": part})
        else:
            buffer = io.BytesIO()
            Image.new("RGB", part).save(buffer, "PNG")
            members[f"{number}.png"] = buffer.getvalue()
            stated.append({"image": f"{number}.png"})
    return Row(key="p", members={"json": json.dumps({"parts": stated}).encode(), **members})


def test_interleaved_pages(golden, processor, deviation):
    """Of the third page the original keeps two pictures and cuts off the rest."""
    run_of = golden(GOLDEN)[1]["runs"]["interleave_cmp"]
    pages = [
        page_row("a photo of", (60, 56), "a cat on the mat"),
        page_row((112, 56), "a dog"),
        page_row((80, 80), (80, 80)),
    ]
    found = [
        encoded(processor().encode(Interleaved().to_conversation(page, Random(0))))
        for page in pages
    ]
    check(found, list(recorded(run_of)), deviation)


def test_interleaved_pages_the_original_loses_or_cuts(processor):
    """Defect 16: a page of text only is lost there. An over-long one is left out here, not cut."""
    talk = Interleaved().to_conversation(page_row("only text"), Random(0))
    ids, labels, _ = encoded(processor().encode(talk))
    assert ids[1:] == labels[1:]
    assert processor().decode_text(ids) == "only text"
    too_long = page_row(*[(80, 80)] * 9, "overlong")
    with pytest.raises(SkipSample, match="longer than max_tokens"):
        processor().encode(Interleaved().to_conversation(too_long, Random(0)))


DRAWN = [
    ("Show me a photograph of a dog on the mat", "Here is a photograph."),
    ("Generate an image of low sim", "Here's an image."),
    ("Generate a picture: very wide", "Here's a picture."),
    ("Show me a photograph of hello world, this is text", "Here is a photograph."),
]


def test_instructions_with_answers_around_the_picture(golden, processor, deviation):
    """What the original draws at random is said here; it learns the instruction it reads, too."""
    picture = Image.new("RGB", (64, 64))
    talks = [
        [
            (False, [Text(text=f"[INST] {ask} [/INST]\n")]),
            (True, [Text(text=answer), DrawnImage(picture=picture), Text(text="\n")]),
        ]
        for ask, answer in DRAWN
    ]
    asked = "[INST] Can you generate a photo of the quick brown fox [/INST]\n"
    talks.append([(False, [ReadImage(picture=picture)]), (True, [Text(text=asked)])])
    found = []
    for talk in talks:
        turns = [Turn(role="document", parts=tuple(p), learn=learn) for learn, p in talk]
        found.append(encoded(processor().encode(Conversation(turns=tuple(turns)))))
    expected = list(recorded(golden(GOLDEN)[1]["runs"]["caption_json_half"]))
    check(found, expected, deviation)


def recorded_tiles(run, mask):
    """Means, standard deviations and places of the tiles marked in a mask, batch by batch."""
    for batch in run["batches"]:
        marked = torch.tensor(batch[mask]["data"]).bool()
        images, places = batch["images"], torch.tensor(batch["patch_position"]["data"])
        yield (
            torch.tensor(images["mean"])[marked],
            torch.tensor(images["std"])[marked],
            places.view(-1, 2)[marked],
        )


@pytest.mark.parametrize(
    ("name", "share", "mask"),
    [("caption_json_cmp", 0.0, "embeds_cmp_mask"), ("caption_json_gen", 1.0, "embeds_gen_mask")],
)
def test_pixels_and_places_of_tiles(golden, shared, processor, deviation, name, share, mask):
    """Raw values less the mean of CLIP's, as the original trains. A drawn one needs one tile."""
    run_of = golden(GOLDEN)[1]["runs"][name]
    shard = shared / "golden" / "fixtures" / "caption" / "00000.tar"
    task = Caption(draw_share=share, **LIMITS)
    kept = run(rows_of(shard), task, processor())[0]
    talks = [task.to_conversation(r, Random(0)) for r in rows_of(shard) if r.key in kept]
    samples = [processor().encode(talk) for talk in talks]
    tiles = torch.cat([sample.tiles for sample in samples]).double()
    places = torch.cat([sample.tile_positions for sample in samples])
    mean, std = (torch.tensor(CLIP[part]).double().view(3, 1, 1) for part in ("mean", "std"))
    values = ((tiles - mean) / std).flatten(1)
    means, spreads, wanted = (
        torch.cat(part) for part in zip(*recorded_tiles(run_of, mask), strict=True)
    )
    deviation(GOLDEN, values.mean(1), means, atol=1e-4, what="means")
    deviation(GOLDEN, values.std(1), spreads, atol=1e-4, what="standard deviations")
    deviation(GOLDEN, places, wanted, atol=0, what="places")
