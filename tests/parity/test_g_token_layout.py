"""Token layouts equal those recorded from the original, its padding and its defects left out.

A recorded row is compared up to its last token that is not padding. Where the original cut a
sample, lost it by a defect or repeated a picture, ours leaves it out or encodes it right; the test
of each such case says so.
"""

import re

import pytest
from PIL import Image

from mllm_npu.errors import SkipSample
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import RAW
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn
from mllm_npu.processing.processor import Processor

GOLDEN = "g_token_layout"
SIZES = {"a.png": (60, 56), "b.png": (112, 56)}
CAPTION = "a photo of a cat"
GRID_OF = {1: "1x1", 2: "1x1", 3: "2x1", 20: "19x1"}


def said(text, **how):
    return [Text(text=text, **how)] if text else []


def document(*turns):
    return Conversation(
        turns=tuple(
            Turn(role="document", parts=tuple(parts), learn=learn) for learn, parts in turns
        )
    )


def make_processor(tokenizer, arguments):
    """The processor a recorded call stands for."""
    forced = arguments.get("patch_length", arguments.get("n_images") or 1)
    if "multi_resolution" in arguments:
        size = arguments["base"]
        grids = ["1x1", "1x2", "2x1", "2x2"] if arguments["multi_resolution"] else ["1x1"]
        repeat = arguments["multi_resolution"]
    else:
        size, grids, repeat = 2, [GRID_OF[forced]], forced > 1
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=grids, tile_size=size, repeat_single_tile=repeat),
        chat_template=RAW,
        num_read_tokens=arguments.get("num_img_in_tokens", arguments.get("n_in", 4)),
        num_drawn_tokens=arguments.get("num_img_out_tokens", arguments.get("n_out", 4)),
        max_tokens=arguments["max_length"],
    )


def caption(arguments, separator="\n"):
    picture = Image.new("RGB", (4, 4))
    text = arguments.get("caption", CAPTION)
    if arguments["img_first_ratio"] > 0:
        return document((False, [ReadImage(picture=picture)]), (True, said(text)))
    response = said(arguments.get("response", ""))
    drawing = [*response, DrawnImage(picture=picture), *said(separator)]
    return document(*([(False, said(text))] if text else []), (True, drawing))


def page(arguments):
    """The interleaved pages that were recorded; their texts are known from the rows that passed."""
    pages = {
        "text-img-text": ["a photo of", "img", "a cat on the mat"],
        "img-text-img-text": ["img", "a cat", "img", "a dog"],
        "text-only": ["a photo of", "a cat on the mat"],
        "both": ["img", "a cat"],
    }
    image = ReadImage if arguments["img_first_ratio"] > 0 else DrawnImage
    pictures = (image(picture=Image.new("RGB", size)) for size in SIZES.values())
    return [
        next(pictures) if kind == "img" else Text(text=kind) for kind in pages[arguments["doc"]]
    ]


def shown_text(parts):
    """How the original spells a page: four slots for a picture."""
    slots = "".join(f"<img_{number:05d}>" for number in range(4))
    return "".join(p.text if isinstance(p, Text) else f"<img>{slots}</img>" for p in parts)


def kept_page(case):
    """The page, or the part of it that the original kept within its length."""
    parts = page(case["args"])
    wanted = re.sub("<patch>.*?</patch>", "", case["result"]["text"])
    while parts and shown_text(parts) != wanted:
        parts.pop()
    return document((True, parts))


def strip_row(arguments):
    """A row of questions and answers; as in the original, one prompt replaces the questions."""
    row = arguments["rowdata"]
    turns = []
    for number, text in enumerate(row["data"]):
        if number % 2:
            turns.append((True, said(text)))
        else:
            shown = number == 0 and "image" in row
            picture = Image.new("RGB", SIZES[row["image"]]) if shown else None
            image = [ReadImage(picture=picture)] if shown else []
            turns.append((False, [*image, *said(arguments["caption_prompt"])]))
    return document(*turns)


def recorded(result):
    """Tokens, labels and slot places of a recorded row, without its padding."""
    length = sum(result["attention_mask"]["data"])
    ids, labels = (result[name]["data"][:length] for name in ("input_ids", "labels"))
    # A label on the first token is never a target: nothing comes before it.
    labels = [-100, *labels[1:]]
    places = [
        [place for place, marked in enumerate(result[name]["data"][:length]) if marked]
        for name in ("ids_cmp_mask", "ids_gen_mask")
    ]
    return ids, labels, *places


def encoded(sample):
    return (
        sample.input_ids.tolist(),
        sample.labels.tolist(),
        sample.read_slots.flatten().tolist(),
        sample.draw_slots.flatten().tolist(),
    )


def check_equal(sample, result, deviation):
    found, expected = encoded(sample), recorded(result)
    assert found == expected
    deviation(GOLDEN, found[0], expected[0], atol=0)
    read = (result.get("embeds_cmp_mask") or {"data": []})["data"]
    drawn = (result.get("embeds_gen_mask") or {"data": []})["data"]
    assert len(sample.read_tiles) == sum(read)
    assert len(sample.draw_tiles) == sum(drawn)


def was_cut(result, tokenizer):
    ids = recorded(result)[0]
    return ids[-1] != tokenizer.eos_token_id


def cases_of(golden, *functions):
    cases = golden(GOLDEN)[1]["cases"]
    return [case for case in cases if case["fn"] in functions]


TOKENIZERS = pytest.mark.parametrize("name", ["bpe", "sp_legacy", "sp_nonlegacy"])


def compare(cases, name, tokenizer, build, deviation):
    """Check every recorded row of one tokenizer; gives (equal, skipped as over-long)."""
    equal = cut = 0
    for case in cases:
        arguments, result = case["args"], case["result"]
        if arguments["tok"] != name or not result or "input_ids" not in result:
            continue
        conversation = build(case)
        if conversation is None:
            continue
        processor = make_processor(tokenizer, arguments)
        if was_cut(result, tokenizer):
            with pytest.raises(SkipSample, match="longer than max_tokens"):
                processor.encode(conversation)
            cut += 1
        else:
            check_equal(processor.encode(conversation), result, deviation)
            equal += 1
    return equal, cut


@TOKENIZERS
def test_captions_equal_the_recorded_ones(golden, golden_tokenizer, deviation, name):
    cases = cases_of(golden, "encode_caption_input_ids_v2", "tokenize_text")

    # An empty caption would teach the model to say nothing; it is tested apart.
    def build(case):
        arguments = case["args"]
        silent = arguments.get("caption") == "" and arguments["img_first_ratio"] > 0
        return None if silent else caption(arguments)

    equal, cut = compare(cases, name, golden_tokenizer(name), build, deviation)
    assert (equal, cut) == {"bpe": (12, 0), "sp_legacy": (8, 0), "sp_nonlegacy": (10, 0)}[name]


@TOKENIZERS
def test_captions_without_separator_equal_the_recorded_ones(
    golden, golden_tokenizer, deviation, name
):
    cases = cases_of(golden, "encode_caption_input_ids")
    equal, cut = compare(
        cases,
        name,
        golden_tokenizer(name),
        lambda case: caption(case["args"], separator=""),
        deviation,
    )
    assert (equal, cut) == {"bpe": (1, 2), "sp_legacy": (1, 2), "sp_nonlegacy": (2, 2)}[name]


@TOKENIZERS
def test_plain_texts_equal_the_recorded_ones(golden, golden_tokenizer, deviation, name):
    cases = cases_of(golden, "decode_text_pretrain_data_for_llm")
    equal, cut = compare(
        cases,
        name,
        golden_tokenizer(name),
        lambda case: document((True, said(case["args"]["text"]))),
        deviation,
    )
    assert (equal, cut) == {"bpe": (1, 1), "sp_legacy": (1, 1), "sp_nonlegacy": (1, 0)}[name]


@TOKENIZERS
def test_interleaved_pages_equal_the_recorded_ones(golden, golden_tokenizer, deviation, name):
    cases = cases_of(golden, "decode_interleave_data")
    equal, cut = compare(cases, name, golden_tokenizer(name), kept_page, deviation)
    assert (equal, cut) == {"bpe": (6, 2), "sp_legacy": (5, 0), "sp_nonlegacy": (4, 0)}[name]


def has_one_turn(case):
    return len(case["args"]["rowdata"]["data"]) == 2


@TOKENIZERS
def test_questions_on_pictures_equal_the_recorded_ones(golden, golden_tokenizer, deviation, name):
    cases = [c for c in cases_of(golden, "decode_llava_data_caption") if c["result"]]
    cases = [case for case in cases if has_one_turn(case)]
    equal, cut = compare(
        cases,
        name,
        golden_tokenizer(name),
        lambda case: strip_row(case["args"]),
        deviation,
    )
    assert (equal, cut) == {"bpe": (6, 1), "sp_legacy": (5, 0), "sp_nonlegacy": (3, 0)}[name]


@TOKENIZERS
def test_tile_positions_of_questions_equal_the_recorded_ones(
    golden, golden_tokenizer, deviation, name
):
    cases = [c for c in cases_of(golden, "decode_llava_data_caption") if c["result"]]
    for case in cases:
        if case["args"]["tok"] != name or "patch_position" not in case["result"]:
            continue
        processor = make_processor(golden_tokenizer(name), case["args"])
        sample = processor.encode(strip_row(case["args"]))
        expected = case["result"]["patch_position"]["data"]
        deviation(GOLDEN, sample.tile_positions.flatten(), expected, atol=0)


@TOKENIZERS
def test_a_picture_of_several_turns_is_laid_out_once(golden, golden_tokenizer, name):
    """Defect 17: the original repeats the slots in every turn and encodes the picture once."""
    tokenizer = golden_tokenizer(name)
    begin = tokenizer.convert_tokens_to_ids("<img>")
    checked = 0
    for case in cases_of(golden, "decode_llava_data_caption"):
        arguments, result = case["args"], case["result"]
        if arguments["tok"] != name or not result or has_one_turn(case):
            continue
        processor = make_processor(tokenizer, {**arguments, "max_length": 64})
        sample = processor.encode(strip_row(arguments))
        num_tiles = 5 if arguments["multi_resolution"] else 1
        assert sample.input_ids.tolist().count(begin) == 1
        assert sample.read_slots.shape == (num_tiles, 4)
        assert len(sample.read_tiles) == len(sample.tiles) == num_tiles
        assert sample.labels[-1] == tokenizer.eos_token_id
        checked += 1
        ids, labels, *_ = recorded(result)
        if not was_cut(result, tokenizer):
            second = ids.index(begin, ids.index(begin) + 1)
            assert sample.input_ids.tolist() == ids[:second] + ids[second + 6 :]
            assert sample.labels.tolist() == labels[:second] + labels[second + 6 :]
    assert checked > 0


@TOKENIZERS
def test_rows_without_a_picture_do_not_depend_on_the_grids(golden, golden_tokenizer, name):
    """Defect 17: the original crashes here when several resolutions are on."""
    tokenizer, checked = golden_tokenizer(name), 0
    for case in cases_of(golden, "decode_llava_data_caption"):
        if case["args"]["tok"] != name or not case["error"]:
            continue
        conversation = strip_row(case["args"])
        single = {**case["args"], "multi_resolution": False}
        many = make_processor(tokenizer, case["args"]).encode(conversation)
        assert encoded(many) == encoded(make_processor(tokenizer, single).encode(conversation))
        assert many.tiles.shape == (0, 3, 28, 28)
        checked += 1
    assert checked == 2


@TOKENIZERS
def test_pages_the_original_loses_are_encoded(golden, golden_tokenizer, name):
    """Defect 16: pages with a drawn picture and several resolutions, and pages of text only."""
    tokenizer, lost = golden_tokenizer(name), set()
    for case in cases_of(golden, "decode_interleave_data"):
        arguments = {**case["args"], "max_length": 96}
        if arguments["tok"] != name or case["result"]:
            continue
        parts = page(arguments)
        sample = make_processor(tokenizer, arguments).encode(document((True, parts)))
        drawn = [part for part in parts if isinstance(part, DrawnImage)]
        assert len(sample.draw_tiles) == len(drawn)
        assert sample.input_ids[0] == tokenizer.bos_token_id
        assert sample.labels[-1] == sample.input_ids[-1] == tokenizer.eos_token_id
        texts = [part.text for part in parts if isinstance(part, Text)]
        learnt = sample.labels[sample.labels != -100].tolist()
        begin = tokenizer.convert_tokens_to_ids("<img>")
        words = [n for t in texts for n in tokenizer.encode(t, add_special_tokens=False)]
        assert [n for n in learnt if n != begin] == [*words, tokenizer.eos_token_id]
        assert learnt.count(begin) == len(drawn)
        lost.add(arguments["doc"])
    assert {"text-only", "both"} <= lost


@TOKENIZERS
def test_samples_the_original_drops_are_skipped_with_a_reason(golden, golden_tokenizer, name):
    tokenizer, reasons = golden_tokenizer(name), set()
    for case in cases_of(golden, "decode_llava_data_caption", "tokenize_text"):
        arguments, printed = case["args"], case["printed"]
        if arguments["tok"] != name or not ("exceed" in printed or "<img>" in printed):
            continue
        build = caption if case["fn"] == "tokenize_text" else strip_row
        reason = "longer than max_tokens" if "exceed" in printed else "spells a control token"
        with pytest.raises(SkipSample, match=reason):
            make_processor(tokenizer, arguments).encode(build(arguments))
        reasons.add(reason)
    assert len(reasons) == 2


@TOKENIZERS
def test_an_empty_caption_teaches_nothing_and_is_skipped(golden_tokenizer, golden, name):
    golden(GOLDEN)
    arguments = {"caption": "", "img_first_ratio": 1.0, "max_length": 16, "patch_length": 1}
    with pytest.raises(SkipSample, match="turn is empty"):
        make_processor(golden_tokenizer(name), arguments).encode(caption(arguments))
