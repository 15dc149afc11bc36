import pytest
import torch
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.prompts import check_question, embed_prompts, encode_reply
from mllm_npu.inference.tile_cache import TileCache, name_tiles
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn, ask
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import load_tokenizer


def test_questions_of_any_length_and_number_of_pictures(fakes):
    model, processor = fakes.FakeModel({}), fakes.ByteProcessor()
    pictures = [Image.new("RGB", (2, 2), (ord(letter),) * 3) for letter in "xyz"]
    conversations = [ask("ab"), ask("c", pictures[:2]), ask("d"), ask("", pictures[2:])]
    samples = [processor.encode(conversation, reply=True) for conversation in conversations]
    prompts = embed_prompts(model, samples, torch.device("cpu"), 2)
    read = ["".join(map(chr, prompt.argmax(-1).tolist())) for prompt in prompts]
    assert read == ["ab", "xyc", "d", "z"]
    assert model.tiles_seen == [2, 1]


def test_without_pictures_no_encoder_runs(fakes):
    model, processor = fakes.FakeModel({}), fakes.ByteProcessor()
    embed_prompts(model, [processor.encode(ask("a"), reply=True)], torch.device("cpu"), 2)
    assert model.tiles_seen == []


def test_a_picture_alone_is_a_question():
    check_question(ask("", [Image.new("RGB", (2, 2))]))


def test_a_question_whose_last_turn_is_empty_is_refused():
    opening = ask("hello").turns
    with pytest.raises(RequestError, match="empty"):
        check_question(ask("x").__class__(turns=(*opening, Turn(role="user", parts=()))))
    blank = (Text(text=" "), ReadImage(picture=Image.new("RGB", (2, 2))))
    check_question(ask("x").__class__(turns=(*opening, Turn(role="user", parts=blank))))


def test_a_tile_that_is_known_is_not_encoded_again(fakes):
    model, processor = fakes.FakeModel({}), fakes.ByteProcessor()
    x, y, z = (Image.new("RGB", (2, 2), (ord(letter),) * 3) for letter in "xyz")
    cache = TileCache(max_bytes=2**20)

    def read(conversations):
        samples = [processor.encode(conversation, reply=True) for conversation in conversations]
        prompts = embed_prompts(
            model,
            samples,
            torch.device("cpu"),
            8,
            cache=cache,
            names=[name_tiles(sample) for sample in samples],
        )
        return ["".join(map(chr, prompt.argmax(-1).tolist())) for prompt in prompts]

    assert read([ask("a", [x, y]), ask("b", [x])]) == ["xya", "xb"]
    assert read([ask("c", [z, x]), ask("d")]) == ["zxc", "d"]
    assert read([ask("e", [y])]) == ["ye"]
    assert model.tiles_seen == [2, 1]


class BlankTokenizer:
    """Puts a blank before whatever a text begins with, as SentencePiece does; words are tokens."""

    def encode_text(self, text):
        return tuple(f" {text}".replace("  ", " |").split(" ")[1:]) if text else ()


def test_raw_text_goes_on_as_one_and_a_turn_begins_anew():
    parts = (Text(text="2 + 2 ="),)
    raw = Conversation(turns=(Turn(role="document", parts=parts),))
    assert encode_reply(BlankTokenizer(), raw, " 4") == ("4",)
    assert encode_reply(BlankTokenizer(), ask("2 + 2 ="), " 4") == ("|4",)


def raw_text(text):
    return Conversation(turns=(Turn(role="document", parts=(Text(text=text),)),))


def test_sentencepiece_puts_no_blank_between_raw_text_and_what_follows(shared):
    pytest.importorskip("sentencepiece")
    tokenizer = load_tokenizer(path=str(shared / "golden" / "tok_sp"))
    processor = Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=["1x1"], tile_size=16),
        chat_template=ChatTemplate(),
        num_read_tokens=4,
        num_drawn_tokens=4,
        max_tokens=64,
    )
    alone = processor.encode_text(" a dog")
    after = encode_reply(processor, raw_text("This is"), " a dog")
    assert len(alone) == len(after) + 1
    assert tokenizer.convert_ids_to_tokens(list(after))[0] == "▁a"
    assert encode_reply(processor, ask("This is"), " a dog") == alone
