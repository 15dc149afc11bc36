import pytest
import torch
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.prompts import check_question, embed_prompts
from mllm_npu.processing.conversation import ReadImage, Text, Turn, ask


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
