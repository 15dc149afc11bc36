"""Conversations become samples whose parts fit each other; what cannot be encoded is refused."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError, RequestError, SkipSample
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.augment import AffineAugment
from mllm_npu.processing.chat_template import INSTRUCT, ChatTemplate
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn, ask
from mllm_npu.processing.image_transform import open_picture, stretch
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.raster import Raster, StoredPicture
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tile_buffer import TileBuffer
from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer

FIELDS = ("input_ids", "labels", "tiles", "tile_positions", "read_tiles", "read_slots")
FIELDS += ("draw_tiles", "draw_slots", "pictures")


def talk(*parts, answer=(), role="user"):
    turns = [Turn(role=role, parts=tuple(parts))] if parts else []
    if answer:
        turns.append(Turn(role="assistant", parts=tuple(answer), learn=True))
    return Conversation(turns=tuple(turns), key="row7", source="cats", task="caption")


def read(image):
    return ReadImage(picture=image)


def drawn(image):
    return DrawnImage(picture=image)


def text(words, learn=None):
    return Text(text=words, learn=learn)


def assert_same(first, second):
    for name in FIELDS:
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None and b is None) or torch.equal(a, b), name


def test_a_read_picture_fills_its_slots(make_processor, picture):
    processor = make_processor()
    sample = processor.encode(talk(read(picture(16, 8)), answer=[text("a cat")]))
    ids = processor.image_ids
    assert sample.read_slots.shape == (3, 4)
    assert sample.input_ids[sample.read_slots].tolist() == [list(ids.slots[:4])] * 3
    before = sample.input_ids[sample.read_slots[:, 0] - 1].tolist()
    after = sample.input_ids[sample.read_slots[:, -1] + 1].tolist()
    assert before == [ids.patch_begin, ids.patch_begin, ids.begin]
    assert after == [ids.patch_end, ids.patch_end, ids.end]
    assert sample.read_tiles.tolist() == [0, 1, 2]
    assert sample.tiles.shape == (3, 3, 8, 8)
    assert sample.draw_slots.shape == (0, 6)
    assert (sample.key, sample.source, sample.task) == ("row7", "cats", "caption")


def test_only_the_answer_and_its_end_are_learnt(make_processor, picture):
    processor = make_processor(chat_template=INSTRUCT)
    conversation = talk(read(picture()), text("which digit?"), answer=[text("seven")])
    sample = processor.encode(conversation)
    learnt = sample.labels[sample.labels != -100].tolist()
    answer = processor.tokenizer.encode("seven", add_special_tokens=False)
    assert learnt == [*answer, processor.eos_id]
    assert sample.labels[-len(learnt) :].tolist() == learnt
    places = sample.labels != -100
    assert torch.equal(sample.labels[places], sample.input_ids[places])


def test_a_text_may_differ_from_its_turn(make_processor):
    processor = make_processor()
    sample = processor.encode(talk(text("a"), answer=[text("b", learn=False), text("c")]))
    learnt = processor.decode_text(sample.labels[sample.labels != -100])
    assert learnt == "c"
    sample = processor.encode(talk(text("a", learn=True), answer=[text("c")]))
    assert processor.decode_text(sample.labels[sample.labels != -100]) == "ac"


def test_a_drawn_picture_needs_one_tile_and_labels_its_opening(make_processor, picture):
    processor = make_processor(picture_size=20)
    image = picture(24, 8)
    sample = processor.encode(talk(text("draw"), answer=[drawn(image)]))
    ids = processor.image_ids
    assert torch.equal(sample.tiles, stretch(image, 8)[None])
    assert sample.tile_positions.tolist() == [[0.5, 0.5]]
    assert sample.draw_tiles.tolist() == [0]
    assert torch.equal(sample.pictures, stretch(image, 20)[None])
    assert sample.input_ids[sample.draw_slots].tolist() == [list(ids.slots[:6])]
    assert (sample.labels[sample.draw_slots] == -100).all()
    begin, end = sample.draw_slots[0, 0] - 1, sample.draw_slots[0, -1] + 1
    assert sample.labels[begin] == sample.input_ids[begin] == ids.begin
    assert sample.input_ids[end] == ids.end
    assert sample.labels[end] == -100


def test_read_and_drawn_pictures_keep_their_order(make_processor, picture):
    processor = make_processor()
    wide, one, other = picture(16, 8), picture(8, 8), picture(9, 9)
    conversation = talk(read(wide), text("and"), read(one), answer=[drawn(other), text("x")])
    sample = processor.encode(conversation)
    assert sample.read_tiles.tolist() == [0, 1, 2, 3]
    assert sample.draw_tiles.tolist() == [4]
    assert torch.equal(sample.tiles[3], stretch(one, 8))
    assert torch.equal(sample.tiles[4], stretch(other, 8))
    assert sample.read_slots.flatten().diff().min() >= 1
    assert sample.pictures is None


def test_text_only_has_empty_tensors_of_the_right_shape(make_processor):
    sample = make_processor(picture_size=5).encode(talk(text("a cat"), role="document"))
    shapes = {name: tuple(getattr(sample, name).shape) for name in FIELDS[2:]}
    assert shapes == {
        "tiles": (0, 3, 8, 8),
        "tile_positions": (0, 2),
        "read_tiles": (0,),
        "read_slots": (0, 4),
        "draw_tiles": (0,),
        "draw_slots": (0, 6),
        "pictures": (0, 3, 5, 5),
    }
    types = [getattr(sample, name).dtype for name in FIELDS]
    assert types == [
        *[torch.int64] * 2,
        torch.uint8,
        torch.float32,
        *[torch.int64] * 4,
        torch.uint8,
    ]


def test_a_reply_is_the_beginning_of_the_trained_sample(make_processor, picture):
    processor = make_processor(chat_template=INSTRUCT)
    asked = processor.encode(ask("which digit?", [picture()]), reply=True)
    question = talk(read(picture()), text("which digit?"), answer=[text("seven")])
    trained = processor.encode(question)
    assert trained.input_ids[: asked.num_tokens].tolist() == asked.input_ids.tolist()
    first = trained.labels[asked.num_tokens :].tolist()
    assert first == trained.input_ids[asked.num_tokens :].tolist()
    assert torch.equal(asked.tiles, trained.tiles)


def test_pictures_drawn_before_a_reply_keep_tokens_and_have_no_tiles(make_processor, picture):
    processor = make_processor()
    image = picture()
    turns = talk(text("draw"), answer=[drawn(image)]).turns
    history = Conversation(turns=(*turns, Turn(role="user", parts=(text("again"),))))
    sample = processor.encode(history, reply=True)
    assert processor.image_ids.end in sample.input_ids.tolist()
    assert sample.tiles.shape[0] == sample.draw_tiles.numel() == sample.draw_slots.shape[0] == 0


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        (Conversation(turns=()), "no turns"),
        (ask(""), "user turn is empty"),
        (ask(" \n "), "user turn is empty"),
        (talk(text("a"), text("")), "text is empty"),
        (talk(text("a <img> b")), "spells a control token"),
        (talk(text("ends </s> here")), "spells a control token"),
        (talk(text("<img_00003>")), "spells a control token"),
        (talk(text("word " * 300)), "longer than max_tokens=200"),
        (talk(drawn(Image.new("RGB", (2, 2)))), "drawn in a user turn"),
        (talk(read(Image.new("RGB", (0, 4)))), "no pixels"),
    ],
)
def test_what_cannot_be_encoded_is_skipped_or_answered(make_processor, conversation, message):
    processor = make_processor()
    with pytest.raises(SkipSample, match=message) as skipped:
        processor.encode(conversation)
    with pytest.raises(RequestError, match=f"{message}.*: ") as refused:
        processor.encode(conversation, reply=True)
    assert str(refused.value).startswith(str(skipped.value))


def test_the_template_may_spell_control_tokens_where_users_may_not(make_processor):
    template = ChatTemplate(assistant_suffix="</s>\n", close_with_eos=False)
    processor = make_processor(chat_template=template)
    sample = processor.encode(talk(text("a"), answer=[text("b")]))
    assert sample.labels[-2] == processor.eos_id


def test_a_sample_of_exactly_the_longest_length_passes(make_processor):
    conversation = talk(text("a cat"), role="document")
    length = make_processor().encode(conversation).num_tokens
    assert make_processor(max_tokens=length).encode(conversation).num_tokens == length
    with pytest.raises(SkipSample):
        make_processor(max_tokens=length - 1).encode(conversation)


def test_an_rng_distorts_and_its_absence_does_not(make_processor, picture):
    processor = make_processor(augment=AffineAugment(rotation=90, shift=0.5), picture_size=8)
    conversation = talk(read(picture()), answer=[drawn(picture())])
    plain = processor.encode(conversation)
    assert_same(plain, make_processor(picture_size=8).encode(conversation))
    first, second = (processor.encode(conversation, rng=random.Random(5)) for _ in range(2))
    assert_same(first, second)
    assert not torch.equal(first.tiles, plain.tiles)
    assert torch.equal(first.pictures[0], first.tiles[1])


def test_a_copy_in_a_worker_encodes_the_same(make_processor, picture):
    processor = make_processor()
    conversation = talk(read(picture()), text("which digit?"), answer=[text("7")])
    sample = processor.encode(conversation)
    copied = pickle.loads(pickle.dumps(processor))
    assert not copied._pieces
    assert_same(copied.encode(conversation), sample)


class Watched:
    """A tokenizer that notes what it is asked."""

    def __init__(self, backend):
        self.backend = backend
        self.texts = []

    def encode(self, text, **how):
        self.texts.append(text)
        return self.backend.encode(text, **how)


def test_a_text_is_tokenised_once(make_processor, monkeypatch):
    processor = make_processor()
    watched = Watched(processor._backend)
    monkeypatch.setattr(processor, "_backend", watched)
    samples = [processor.encode(talk(text("a cat"), role="document")) for _ in range(3)]
    assert watched.texts == ["a cat"]
    assert samples[0].num_tokens == samples[2].num_tokens > 2


def test_the_cache_does_not_grow_for_ever(make_processor, monkeypatch):
    monkeypatch.setattr("mllm_npu.processing.processor._CACHED_PIECES", 4)
    processor = make_processor()
    for number in range(20):
        processor.encode(talk(text(f"number {number}"), role="document"))
    processor.encode(talk(text("a photo of a cat " * 31), role="document"))
    assert len(processor._pieces) <= 4
    assert max(map(len, processor._pieces)) < 20


@pytest.mark.parametrize("template", [ChatTemplate(), INSTRUCT, ChatTemplate(system="Be kind.")])
def test_lengths_add_up_by_the_rule(make_processor, picture, template):
    processor = make_processor(chat_template=template)
    rule, sizes = processor.length_rule, [(16, 8), (8, 8), (24, 8)]
    for number in range(4):
        parts = [*(read(picture(*size)) for size in sizes[:number]), text("which digit is this?")]
        answer = [text("it is 7"), *[drawn(picture())] * number]
        sample = processor.encode(talk(*parts, answer=answer))
        words = sum(map(processor.count_tokens, ("which digit is this?", "it is 7")))
        tiles = sum(processor.any_resolution.num_tiles(*size) for size in sizes[:number])
        frames = rule.opening + rule.default_system + rule.user_frame + rule.assistant_frame
        pictures = tiles * rule.read_tile + number * rule.drawn_picture
        assert sample.num_tokens == frames + words + pictures


@pytest.mark.parametrize("words", ["", "a cat", " a", "größer 七 😀\n", "</s>", "word " * 500])
def test_tokens_are_counted_as_they_are_laid_out(make_processor, words):
    processor = make_processor(max_tokens=5000)
    assert processor.count_tokens(words) == len(processor._tokenize(words))
    assert processor.count_tokens(words) == len(
        processor.tokenizer.encode(words, add_special_tokens=False)
    )


def make_tokenizer(texts, num_slots=8, num_locations=0):
    trained = train_tokenizer(texts, vocab_size=268)
    add_special_tokens(trained, SpecialTokens(num_slots=num_slots, num_locations=num_locations))
    return trained


def test_one_tokenizer_is_told_from_another(make_processor, tmp_path):
    texts = ["a photo of a cat", "which digit is this?"] * 5
    first = make_tokenizer(texts)
    fingerprint = make_processor(tokenizer=first).tokenizer_fingerprint
    assert make_processor(tokenizer=first, max_tokens=7).tokenizer_fingerprint == fingerprint
    assert make_processor(tokenizer=make_tokenizer(texts)).tokenizer_fingerprint == fingerprint
    first.save_pretrained(tmp_path)
    loaded = load_tokenizer(path=str(tmp_path))
    assert make_processor(tokenizer=loaded).tokenizer_fingerprint == fingerprint
    processor = pickle.loads(pickle.dumps(make_processor(tokenizer=first)))
    assert processor.tokenizer_fingerprint == fingerprint
    namesake = make_tokenizer(["entirely other words in here"] * 5)
    assert len(namesake) == len(first)
    others = [
        namesake,
        make_tokenizer(texts, num_slots=9),
        make_tokenizer(texts, num_locations=4),
    ]
    told = {make_processor(tokenizer=other).tokenizer_fingerprint for other in others}
    assert len(told | {fingerprint}) == 4


def test_padding_that_someone_left_on_changes_nothing(make_processor, tokenizer):
    length = make_processor().count_tokens("a cat")
    fingerprint = make_processor().tokenizer_fingerprint
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.backend_tokenizer.enable_truncation(1)
    processor = make_processor()
    assert processor.count_tokens("a cat") == length > 1
    assert processor.tokenizer_fingerprint == fingerprint


@pytest.mark.parametrize("exact", [True, False])
def test_a_buffer_changes_where_tiles_lie_and_nothing_else(make_processor, picture, exact):
    cut = AnyResolution(grids=["1x1", "2x1", "3x1"], tile_size=8, exact=exact)
    processor = make_processor(picture_size=20, any_resolution=cut, condition_pictures=True)
    wide, one = read(picture(21, 8)), read(picture(9, 9))
    talks = [
        talk(wide, text("and"), one, answer=[drawn(picture(11, 7)), text("x")]),
        talk(text("no picture"), answer=[text("x")]),
        talk(text("draw"), answer=[drawn(picture(8, 8))]),
        talk(one, answer=[text("a cat")]),
    ]
    buffer = TileBuffer(capacity=20, tile_size=8)
    for conversation in talks:
        before = buffer.used
        plain = processor.encode(conversation)
        sample = processor.fill(processor.lay_out(conversation), buffer=buffer)
        assert_same(sample, plain)
        assert buffer.used == before + len(plain.tiles)
        assert sample.tiles.permute(0, 2, 3, 1).is_contiguous()
    samples = [
        processor.fill(processor.lay_out(conversation), buffer=buffer)
        for conversation in (talks[2],) * 2
    ]
    joined = buffer.join([sample.tiles for sample in samples])
    assert joined.data_ptr() == samples[0].tiles.data_ptr()
    assert torch.equal(joined, torch.cat([sample.tiles for sample in samples]))


def test_a_buffer_that_is_full_changes_nothing(make_processor, picture):
    processor = make_processor()
    conversation = talk(read(picture(16, 8)), read(picture()), answer=[drawn(picture(24, 8))])
    plain = processor.encode(conversation)
    for capacity in range(len(plain.tiles) + 1):
        buffer = TileBuffer(capacity=capacity, tile_size=8)
        assert_same(processor.fill(processor.lay_out(conversation), buffer=buffer), plain)


def test_a_layout_has_the_tokens_and_counts_the_tiles(make_processor, picture):
    processor = make_processor(chat_template=INSTRUCT)
    conversation = talk(read(picture(16, 8)), text("a"), answer=[drawn(picture()), text("b")])
    for reply in (False, True):
        layout = processor.lay_out(conversation, reply=reply)
        sample = processor.encode(conversation, reply=reply)
        assert layout.ids == sample.input_ids.tolist()
        assert layout.labels == sample.labels.tolist()
        assert layout.num_tokens == sample.num_tokens
        assert layout.num_tiles == len(sample.tiles) == (3 if reply else 4)
        assert_same(processor.fill(layout), sample)
    assert processor.fill(layout).key == "row7"


class Undecoded:
    """Bytes of a picture that must not be decoded."""

    def __call__(self, data):
        pytest.fail("decoded")


def test_no_pixel_is_touched_to_lay_out(make_processor):
    processor = make_processor(picture_size=20)
    stored = StoredPicture(b"", (16, 8), Undecoded())
    layout = processor.lay_out(talk(read(stored), answer=[drawn(stored)]))
    assert (layout.num_tiles, [part.picture for part in layout.pictures]) == (4, [stored] * 2)
    with pytest.raises(SkipSample, match="longer than max_tokens"):
        make_processor(max_tokens=5).encode(talk(read(stored)))


def test_a_stored_picture_is_encoded_as_its_pixels(make_processor, picture):
    image = picture(21, 9)
    stored = StoredPicture(b"the bytes", image.size, lambda _: image)
    for options in ({}, {"augment": AffineAugment(rotation=30)}):
        processor = make_processor(picture_size=20, condition_pictures=True, **options)
        given = [
            processor.encode(talk(read(one), answer=[drawn(one)]), rng=random.Random(3))
            for one in (image, stored)
        ]
        assert_same(*given)


@pytest.mark.parametrize("augment", [None, AffineAugment(rotation=30)])
def test_a_stored_picture_that_is_broken_is_skipped(make_processor, augment):
    stored = StoredPicture(b"no picture", (8, 8), open_picture)
    processor = make_processor(augment=augment)
    with pytest.raises(SkipSample, match=r"^picture cannot be read$"):
        processor.encode(talk(read(stored)), rng=random.Random(0))


def test_rasters_are_encoded_as_pillows_pictures(make_processor, picture):
    image = picture(21, 9)
    raster = Raster(np.array(image))
    for options in ({}, {"augment": AffineAugment(rotation=30)}):
        processor = make_processor(picture_size=20, **options)
        given = [
            processor.encode(talk(read(one), answer=[drawn(one)]), rng=random.Random(3))
            for one in (image, raster)
        ]
        assert_same(*given)


def test_answers_are_read_without_pictures_and_controls(make_processor):
    processor = make_processor()
    encode = processor.tokenizer.encode
    ids = encode("<s>It is<img><img_00000><img_00001></img> a 7.</s><pad>")
    assert processor.decode_text(ids) == "It is a 7."
    assert processor.decode_text(torch.tensor(ids)) == "It is a 7."
    assert processor.decode_text([]) == ""


def test_ids_are_those_of_the_tokenizer(make_processor, tokenizer):
    processor = make_processor()
    assert processor.tokenizer is tokenizer
    assert (processor.pad_id, processor.eos_id) == (0, 2)


def test_a_vocabulary_without_begin_and_padding_will_do():
    trained = train_tokenizer(["a cat"] * 5, vocab_size=270)
    bare = PreTrainedTokenizerFast(tokenizer_object=trained.backend_tokenizer, eos_token="</s>")
    add_special_tokens(bare, SpecialTokens(num_slots=8, num_locations=0))
    processor = make_bare(bare)
    sample = processor.encode(talk(text("a cat"), role="document"))
    assert processor.pad_id == processor.eos_id
    assert processor.decode_text(sample.input_ids[:1]) != ""


def make_bare(tokenizer):
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=["1x1"], tile_size=8),
        chat_template=ChatTemplate(),
        num_read_tokens=2,
        num_drawn_tokens=2,
        max_tokens=50,
    )


@pytest.mark.parametrize("counts", [(9, 1), (1, 9), (0, 1), (1, -1)])
def test_more_slots_than_the_vocabulary_has_are_refused(make_processor, counts):
    with pytest.raises(ConfigError, match=r"has 8 image slots"):
        make_processor(num_read_tokens=counts[0], num_drawn_tokens=counts[1])


@pytest.mark.parametrize("change", [{"max_tokens": 0}, {"picture_size": 0}])
def test_sizes_below_one_are_refused(make_processor, change):
    with pytest.raises(ConfigError, match="from 1 on"):
        make_processor(**change)


def test_a_model_that_only_reads_leaves_out_what_is_drawn(make_processor, picture):
    processor = make_processor(num_drawn_tokens=0)
    sample = processor.encode(talk(read(picture()), answer=[text("a cat")]))
    assert sample.draw_slots.shape == (0, 0)
    with pytest.raises(SkipSample, match="only reads"):
        processor.encode(talk(text("draw"), answer=[drawn(picture())]))


def test_text_that_is_no_unicode_is_refused(make_processor):
    with pytest.raises(RequestError, match="UTF-8"):
        make_processor().encode(talk(text("caf\udce9")), reply=True)
    assert make_processor().encode(talk(text("café 😀")), reply=True).num_tokens > 3


def test_places_in_pictures_are_read_and_hidden_from_the_text(make_processor):
    tokenizer = train_tokenizer(["a cat"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=8, num_locations=4))
    processor = make_processor(tokenizer=tokenizer)
    said = "a cat<box_start><loc-2><loc-2><loc-2><loc-1><box_end>"
    sample = processor.encode(talk(text("where?"), answer=[text(said)]))
    learnt = sample.labels[sample.labels >= 0].tolist()[:-1]
    assert processor.decode_text(learnt) == "a cat"
    assert processor.decode_text(learnt, boxes=True) == said
    [box] = processor.read_boxes(learnt)
    assert (box.x0, box.x1, box.y0, box.y1) == (0.25, 0.75, 0.375, 0.625)
    assert box.label == "a cat"


def test_a_vocabulary_without_places_has_no_boxes(make_processor):
    processor = make_processor()
    assert processor.read_boxes(processor.tokenizer.encode("<loc-1>")) == ()
