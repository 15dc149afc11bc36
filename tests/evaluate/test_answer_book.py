"""What is answered once is not asked again: files that outlive a process, and keys of questions."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.answer_book import (
    Answer,
    AnswerBook,
    fingerprint,
    forget_answers,
    question_key,
)
from mllm_npu.inference.events import Likelihood
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn, ask
from mllm_npu.processing.grounding import Box
from mllm_npu.processing.raster import Raster, StoredPicture


@pytest.fixture
def answer(fakes):
    def make(text="yes", pictures=(), **changes):
        reply = replace(fakes.make_reply(text, pictures), **changes)
        return Answer(reply=reply, seconds=0.25)

    return make


def test_a_book_in_memory_writes_nothing(answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    book = AnswerBook()
    book.keep("k", answer())
    book.reload()
    assert book.find("k").reply.text == "yes"
    assert book.find("other") is None
    assert list(tmp_path.iterdir()) == []


def test_an_answer_is_read_back_as_it_was(answer, fakes, tmp_path):
    kept = answer(
        "a\nb ☃ \u2028 \x1f",
        [fakes.noise_picture(1), fakes.noise_picture(2)],
        choices=(Likelihood(text=" 二", logprob=-1 / 3, num_tokens=2, is_greedy=True),),
        boxes=(Box(x0=0.0, y0=0.25, x1=1 / 3, y1=1.0, label="dog"),),
        finish_reason="length",
        num_new_tokens=7,
    )
    AnswerBook(tmp_path, model="m").keep("k", kept)
    found = AnswerBook(tmp_path, model="m").find("k")
    for name in ("text", "choices", "boxes", "finish_reason", "num_new_tokens"):
        assert getattr(found.reply, name) == getattr(kept.reply, name), name
    assert (found.seconds, found.refused) == (0.25, None)
    drawn = [picture.tobytes() for picture in kept.reply.pictures]
    assert [picture.tobytes() for picture in found.reply.pictures] == drawn
    assert len(found.reply.features) == 2


def test_a_refusal_is_kept_too(answer, tmp_path):
    AnswerBook(tmp_path, model="m").keep("k", replace(answer(""), refused="too long"))
    assert AnswerBook(tmp_path, model="m").find("k").refused == "too long"


def test_each_answer_is_there_before_the_next_is_asked(answer, tmp_path):
    writing = AnswerBook(tmp_path, model="m")
    for number in range(3):
        writing.keep(str(number), answer(str(number)))
        assert AnswerBook(tmp_path, model="m", rank=1).find(str(number)) is not None


def test_half_a_line_of_a_killed_process_is_dropped_and_its_question_asked_again(answer, tmp_path):
    book = AnswerBook(tmp_path, model="m")
    book.keep("first", answer("1"))
    book.keep("second", answer("2"))
    path = tmp_path / "m-0.jsonl"
    whole = path.read_bytes()
    for cut in (1, 5, len(whole) // 3):
        path.write_bytes(whole[:-cut])
        # Another rank only passes it over: the file is not its own.
        assert AnswerBook(tmp_path, model="m", rank=1).find("second") is None
        assert path.read_bytes() == whole[:-cut]
        again = AnswerBook(tmp_path, model="m")
        assert again.find("first").reply.text == "1"
        assert again.find("second") is None
        again.keep("second", answer("2"))
        assert AnswerBook(tmp_path, model="m").find("second").reply.text == "2"
        assert len(path.read_text().splitlines()) == 2


def test_another_model_is_not_believed(answer, tmp_path):
    AnswerBook(tmp_path, model="ab12-cpu").keep("k", answer())
    for model in ("ab13-cpu", "ab12-npu", "b12-cpu"):
        assert AnswerBook(tmp_path, model=model).find("k") is None
    assert AnswerBook(tmp_path, model="ab12-cpu").find("k") is not None


def test_ranks_see_what_others_have_written_when_they_look_again(answer, tmp_path):
    first, second = (AnswerBook(tmp_path, model="m", rank=rank) for rank in range(2))
    first.keep("a", answer("1"))
    second.keep("b", answer("2"))
    assert first.find("b") is None
    first.reload()
    assert first.find("b").reply.text == "2"
    second.keep("c", answer("3"))
    first.reload()
    assert first.find("c").reply.text == "3"
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["m-0.jsonl", "m-1.jsonl"]


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"key": "k", "pictures": ["gone.png"]}', "7"])
def test_a_line_that_is_no_answer_says_what_to_do(answer, tmp_path, line):
    AnswerBook(tmp_path, model="m").keep("k", answer())
    with (tmp_path / "m-0.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"m-0\.jsonl holds a line that is no answer.*--fresh"):
        AnswerBook(tmp_path, model="m")


def test_a_place_that_cannot_be_written_is_told(answer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"Answers were to be kept in .*file"):
        AnswerBook(tmp_path / "file" / "answers", model="m")
    book = AnswerBook(tmp_path / "answers", model="m")
    (tmp_path / "answers" / "m-0.jsonl").mkdir()
    with pytest.raises(DataError, match=r"cannot be kept.*Make room and run the same command"):
        book.keep("k", answer())


def test_answers_are_forgotten_altogether(answer, fakes, tmp_path):
    folder = tmp_path / "answers"
    forget_answers(folder)
    AnswerBook(folder, model="m").keep("k", answer("", [fakes.noise_picture(1)]))
    forget_answers(folder)
    assert not folder.exists()
    assert AnswerBook(folder, model="m").find("k") is None
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="were to be forgotten"):
        forget_answers(tmp_path / "file")


def test_a_question_is_what_is_asked_and_how(fakes):
    picture, other = fakes.noise_picture(1), fakes.noise_picture(2)
    base = fakes.make_example("a", conversation=ask("q", [picture]), choices=("x", "y"))
    document = Turn(role="document", parts=(ReadImage(picture=picture), Text(text="q")))
    changes = [
        {"conversation": ask("Q", [picture])},
        {"conversation": ask("q", [other])},
        {"conversation": ask("q", [picture, picture])},
        {"conversation": ask("q", [picture], system="s")},
        {"conversation": Conversation(turns=(document,))},
        {"conversation": Conversation(turns=(replace(document, parts=document.parts[::-1]),))},
        {"options": GenerationOptions(max_new_tokens=3)},
        {"options": GenerationOptions(seed=9)},
        {"options": GenerationOptions(stop=("x",))},
        {"choices": ("y", "x")},
        {"choices": ()},
        {"redraws": True},
    ]
    keys = [question_key(replace(base, **change)) for change in changes]
    assert len({question_key(base), *keys}) == 1 + len(changes)
    same = replace(base, name="n", answer="b", facts={"f": "g"}, groups=("h",), num_shots=1)
    assert question_key(same) == question_key(base)


def test_a_picture_is_its_pixels_or_its_stored_bytes(fakes):
    picture = fakes.noise_picture(1)
    raster = Raster(pixels=np.array(picture))
    assert question_key(fakes.make_example("a", conversation=ask("", [picture]))) == question_key(
        fakes.make_example("a", conversation=ask("", [raster]))
    )

    def stored(data):
        broken = StoredPicture(data=data, size=(1, 1), decoder=lambda _: Image.new("RGB", (1, 1)))
        return question_key(fakes.make_example("a", conversation=ask("", [broken])))

    assert stored(b"1") == stored(b"1") != stored(b"2")


def test_a_model_is_its_files_and_nothing_beside_them(tmp_path):
    weights, tokenizer = tmp_path / "model" / "w.safetensors", tmp_path / "model" / "tokenizer"
    tokenizer.mkdir(parents=True)
    for path in (weights, tokenizer / "a.json", tokenizer / "b.json"):
        path.write_text("1")
        os.utime(path, (1, 1))
    files = [weights, tokenizer]
    first = fingerprint(files)
    (tmp_path / "model" / "evaluation").mkdir()
    assert fingerprint(files) == first
    os.utime(tokenizer / "b.json", (2, 2))
    second = fingerprint(files)
    weights.write_text("12")
    os.utime(weights, (1, 1))
    third = fingerprint(files)
    (tokenizer / "b.json").rename(tokenizer / "c.json")
    assert len({first, second, third, fingerprint(files)}) == 4
    (tmp_path / "model").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / path.name for path in files]
    (tokenizer.parent.with_name("moved") / "tokenizer" / "c.json").rename(
        tmp_path / "moved" / "tokenizer" / "b.json"
    )
    assert fingerprint(moved) == third
