import json

import pytest
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference import answer_file
from mllm_npu.inference.answer_file import answer_all
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.question_file import Question


class Parrot:
    """Says what was asked; draws where "draw" is in it; refuses "no"."""

    def __init__(self):
        self.seen = []

    def reply(self, talk, options):
        words = talk.turns[-1].parts[-1].text
        if words == "no":
            raise RequestError("I will not.")
        self.seen.append(words)
        drawn = (Image.new("RGB", (2, 2)),) if "draw" in words else ()
        return Reply(
            text=f"{words} {options.max_new_tokens}",
            pictures=drawn,
            features=(),
            finish_reason="stop",
            num_prompt_tokens=3,
            num_new_tokens=2,
        )

    def reply_many(self, talks, options):
        return [self.reply(talk, wish) for talk, wish in zip(talks, options, strict=True)]


def ask_all(parrot, out, *words, **more):
    questions = [Question(key=f"q{n}", prompt=word, **more) for n, word in enumerate(words)]
    return answer_all(parrot, questions, GenerationOptions(), out)


def lines(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_each_question_gets_a_line_in_order_and_its_pictures(tmp_path):
    out = tmp_path / "deep" / "answers.jsonl"
    done = ask_all(Parrot(), out, "one", "draw it", options={"max_new_tokens": 7})
    assert (done.answered, done.refused, done.kept) == (2, 0, 0)
    first, second = lines(out)
    assert (first["id"], first["text"], first["pictures"]) == ("q0", "one 7", [])
    (picture,) = second["pictures"]
    assert picture == str(tmp_path / "deep" / "answers-pictures" / "q1.png")
    with Image.open(picture) as drawn:
        assert drawn.size == (2, 2)


def test_what_is_answered_is_not_asked_again_and_a_cut_line_is(tmp_path):
    out = tmp_path / "a.jsonl"
    ask_all(Parrot(), out, "one", "two")
    whole = out.read_text()
    out.write_text(whole[:-5])
    parrot = Parrot()
    done = ask_all(parrot, out, "one", "two", "three")
    assert parrot.seen == ["two", "three"]
    assert (done.answered, done.kept) == (2, 1)
    assert out.read_text().startswith(whole)
    assert [line["id"] for line in lines(out)] == ["q0", "q1", "q2"]
    assert ask_all(Parrot(), out, "one", "two", "three").answered == 0


def test_one_that_cannot_be_answered_does_not_stop_the_others(tmp_path):
    out = tmp_path / "a.jsonl"
    done = ask_all(Parrot(), out, "one", "no", "three")
    assert (done.answered, done.refused) == (2, 1)
    assert lines(out)[1] == {"id": "q1", "prompt": "no", "error": "I will not."}
    gone = ask_all(Parrot(), tmp_path / "b.jsonl", "x", images=(tmp_path / "gone.png",))
    assert gone.refused == 1
    assert "gone.png" in lines(tmp_path / "b.jsonl")[0]["error"]


def test_answers_are_on_the_disk_after_every_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(answer_file, "CHUNK", 2)
    out, moved = tmp_path / "a.jsonl", []

    class Stopping(Parrot):
        def reply(self, talk, options):
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().reply(talk, options)

    questions = [Question(key=str(n), prompt=f"q{n}") for n in range(5)]
    with pytest.raises(KeyboardInterrupt):
        answer_all(
            Stopping(), questions, GenerationOptions(), out, progress=lambda *at: moved.append(at)
        )
    assert moved == [(0, 5), (2, 5)]
    assert len(lines(out)) == 2


def test_no_key_leads_out_of_the_folder(tmp_path):
    questions = [Question(key="../../etc/x", prompt="draw")]
    answer_all(Parrot(), questions, GenerationOptions(), tmp_path / "a.jsonl")
    assert [p.name for p in (tmp_path / "a-pictures").iterdir()] == ["_.._etc_x.png"]


def test_a_file_of_other_answers_is_refused(tmp_path):
    out = tmp_path / "a.jsonl"
    ask_all(Parrot(), out, "one", "two")
    with pytest.raises(RequestError, match="an answer to 'q1', which is not asked now"):
        ask_all(Parrot(), out, "one")
    out.write_text("hello\nyou\n")
    with pytest.raises(RequestError, match="holds no answers"):
        ask_all(Parrot(), out, "one")
