"""Prompts with continuations as tokens: whole texts, nothing lost between, cut where too long."""

import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import RequestError, TooLongError
from mllm_npu.evaluate.lm_eval_prompt import write_chat
from mllm_npu.evaluate.lm_eval_tokens import PairEncoder
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.sentencepiece_model import mark_spaces
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

WORDS = "the answer is a dog and the answer is a cat"
PICTURE = Image.new("RGB", (16, 16))


def make_processor(tokenizer):
    add_special_tokens(tokenizer, SpecialTokens(num_slots=4, num_locations=0))
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=["1x1"], tile_size=16, repeat_single_tile=False),
        chat_template=ChatTemplate(user_prefix="U:", user_suffix="\n", system_suffix="\n"),
        num_read_tokens=4,
        num_drawn_tokens=4,
        max_tokens=200,
    )


@pytest.fixture(scope="module")
def processor():
    return make_processor(train_tokenizer([WORDS] * 3, vocab_size=300))


@pytest.fixture(scope="module")
def marking_processor():
    """One that puts a mark before every text, as SentencePiece does."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<unk>", "<s>", "</s>"]
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=special, show_progress=False)
    backend.train_from_iterator([WORDS] * 3, trainer)
    marked = mark_spaces(backend, legacy=True, at_start=True)
    return make_processor(
        PreTrainedTokenizerFast(
            tokenizer_object=marked, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
    )


@pytest.fixture
def encoder(processor):
    return lambda max_tokens=200: PairEncoder(processor=processor, max_tokens=max_tokens)


def ids_of(pairs):
    return pairs.prompt.input_ids.tolist()


def plain(processor, text):
    return list(processor.encode_text(text))


def test_a_continuation_is_the_end_of_the_whole_text(encoder, processor):
    [pairs] = encoder().encode("the answer is", [" a dog", " a", "?"])
    assert pairs.numbers == (0, 1, 2)
    assert ids_of(pairs) == [1, *plain(processor, "the answer is")]
    for continuation, text in zip(pairs.continuations, (" a dog", " a", "?"), strict=True):
        whole = plain(processor, f"the answer is{text}")
        assert [*ids_of(pairs)[1:], *continuation] == whole


def test_a_mark_before_every_text_is_not_weighed(marking_processor):
    """By itself " a dog" begins with a mark that the text has not."""
    encoder = PairEncoder(processor=marking_processor, max_tokens=200)
    [pairs] = encoder.encode("the answer is", [" a dog"])
    spelt = marking_processor.tokenizer.convert_ids_to_tokens
    whole = plain(marking_processor, "the answer is a dog")
    assert [*ids_of(pairs)[1:], *pairs.continuations[0]] == whole
    assert spelt(pairs.continuations[0])[0] == "\u2581a"
    assert spelt(plain(marking_processor, " a dog"))[0] == "\u2581"


def test_blanks_at_the_end_of_a_prompt_belong_to_the_continuation(encoder, processor):
    [pairs] = encoder().encode("the answer \n", ["is"])
    assert ids_of(pairs) == [1, *plain(processor, "the answer")]
    assert list(pairs.continuations[0]) == plain(processor, " \nis")


def test_where_the_whole_text_begins_otherwise_the_continuation_stands_alone(encoder, processor):
    prompt, text = "the ans", "wer"
    assert plain(processor, prompt + text)[: len(plain(processor, prompt))] != plain(
        processor, prompt
    )
    [pairs] = encoder().encode(prompt, [text])
    assert ids_of(pairs) == [1, *plain(processor, prompt)]
    assert list(pairs.continuations[0]) == plain(processor, text)


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_no_prompt_is_the_begin_token(encoder, processor, prompt):
    [pairs] = encoder().encode(prompt, ["a dog"])
    assert ids_of(pairs) == [1]
    assert list(pairs.continuations[0]) == plain(processor, f"{prompt}a dog")


def test_without_a_begin_token_it_is_the_end_token(world):
    tokenizer = train_tokenizer([WORDS], vocab_size=300)
    tokenizer.bos_token = None
    encoder = PairEncoder(processor=make_processor(tokenizer), max_tokens=9)
    [pairs] = encoder.encode("", ["a"])
    assert encoder.prefix_id == 2
    assert ids_of(pairs) == [2]
    [pairs] = encoder.encode("a", ["b"])
    assert ids_of(pairs) == list(encoder.tokens("a"))


def test_a_long_prompt_loses_its_beginning_as_each_continuation_asks(encoder):
    texts = [" a dog", " a cat", " a", " is a dog and"]
    [whole] = encoder().encode(WORDS, texts)
    cut = encoder(8)
    found = cut.encode(WORDS, texts)
    assert cut.num_cut == 1
    assert sorted(number for pairs in found for number in pairs.numbers) == [0, 1, 2, 3]
    for pairs in found:
        for number, continuation in zip(pairs.numbers, pairs.continuations, strict=True):
            assert continuation == whole.continuations[number]
            read = [*ids_of(whole), *continuation][-9:-1]
            assert [*ids_of(pairs), *continuation][:-1] == read
    with pytest.raises(TooLongError, match="has 9 tokens, the model takes 8"):
        encoder(8).encode("", ["12345678 "])


def test_a_long_chat_loses_its_oldest_words(encoder, processor):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": WORDS},
        {"role": "assistant", "content": WORDS},
        {"role": "user", "content": "the answer?"},
    ]
    turns = [Turn(role=each["role"], parts=(Text(text=each["content"]),)) for each in messages]
    whole = processor.lay_out(Conversation(turns=tuple(turns)), reply=True).num_tokens
    for num_kept, less in ((2, 0), (1, 2), (0, 20)):
        cut = encoder(whole - less + len(plain(processor, "a dog")) - 1)
        [pairs] = cut.encode(write_chat(messages), ["a dog"])
        assert list(pairs.continuations[0]) == plain(processor, "a dog")
        assert whole - less - 4 <= pairs.prompt.num_tokens <= whole - less
        assert cut.num_cut == (less > 0)
        found = processor.tokenizer.decode(ids_of(pairs))
        assert found.startswith("<s>Be brief.\n")
        assert found.endswith("U:the answer?\n")
        assert found.count("the answer is a dog") == num_kept
    kept = Conversation(turns=(turns[0], turns[3]))
    num_kept = len(processor.lay_out(kept, reply=True).ids)
    [pairs] = encoder(num_kept).encode(write_chat(messages), ["a"])
    assert ids_of(pairs) == processor.lay_out(kept, reply=True).ids
    with pytest.raises(TooLongError, match="leaves no room"):
        encoder(8).encode(write_chat(messages), ["a dog"])
    with pytest.raises(TooLongError, match="Leave its task out"):
        encoder(8).encode(write_chat(messages), ["123456789"])


def test_a_picture_is_never_cut(encoder, processor):
    [pairs] = encoder(16).encode(f"{WORDS} <image> the answer is", [" a dog", " a"], [PICTURE])
    assert pairs.prompt.read_slots.shape == (1, 4)
    assert len(pairs.prompt.tiles) == 1
    assert pairs.numbers == (0, 1)
    assert list(pairs.continuations[0]) == plain(processor, " a dog")
    assert 8 < pairs.prompt.num_tokens <= 16 + 1 - len(pairs.continuations[0])
    with pytest.raises(TooLongError, match="leaves no room"):
        encoder(6).encode(f"{WORDS} <image>", [" a"], [PICTURE])


def test_what_fits_is_left_as_it_is(encoder):
    conversation = Conversation(
        turns=(Turn(role="document", parts=(ReadImage(picture=PICTURE), Text(text=WORDS))),)
    )
    maker = encoder()
    assert maker.shorten(conversation, 200) is conversation
    assert maker.num_cut == 0


def test_letters_of_several_tokens_are_cut_too(encoder):
    """Nothing hangs where a token is a part of a letter."""
    conversation = Conversation(turns=(Turn(role="document", parts=(Text(text="🙂" * 9),)),))
    assert encoder().shorten(conversation, 6).turns[0].parts[0].text == "🙂"


def test_control_tokens_are_letters(encoder, processor):
    [pairs] = encoder().encode("a <img> the", [" </s>"])
    pieces = ("a <", "img> the", " <", "/s>")
    whole = [number for piece in pieces for number in plain(processor, piece)]
    assert [*ids_of(pairs)[1:], *pairs.continuations[0]] == whole
    with pytest.raises(RequestError, match="not valid Unicode"):
        encoder().encode("\ud800", ["a"])
    assert encoder().tokens("") == ()
