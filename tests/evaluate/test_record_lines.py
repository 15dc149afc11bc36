"""A line per example: what was asked, said, understood, and which pictures there were."""

import json
from dataclasses import replace

import pytest

from mllm_npu.evaluate.picture_shelf import PictureShelf
from mllm_npu.evaluate.prompt import put_question
from mllm_npu.evaluate.record_lines import record_lines
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.inference.events import Likelihood
from mllm_npu.processing.conversation import ask


@pytest.fixture
def write(fakes):
    def lines(*records, **options):
        result = TaskResult(task=fakes.EchoTask([]), records=records)
        return [json.loads(line) for line in record_lines([result], **options)]

    return lines


def test_a_line_says_what_was_asked_and_said(fakes, write):
    [line] = write(fakes.make_record("a", "x\ny"))
    assert line == {
        "task": "echo",
        "example": "e0",
        "question": ["Say a"],
        "answer": "a",
        "reply": "x\ny",
        "num_pictures": 0,
        "understood": "x\ny",
        "score": 0.0,
    }


def test_a_line_is_one_line_in_the_letters_of_its_language(fakes):
    record = fakes.make_record("是", "a\nb\u2028")
    [line] = record_lines([TaskResult(task=fakes.EchoTask([]), records=(record,))])
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert "是" in line


def test_what_is_not_always_there_is_said_where_it_is(fakes, write):
    put = put_question(["Q"], frame="plain", shots=("1", "2"), intro="I")
    record = fakes.make_record(
        *("a", " A"), conversation=put, num_shots=2, first_shot=1, groups=("stem", "maths")
    )
    choices = (
        Likelihood(text=" A", logprob=-1 / 3, num_tokens=1, is_greedy=True),
        Likelihood(text=" B", logprob=-2.0, num_tokens=1, is_greedy=False),
    )
    record = replace(record, reply=replace(record.reply, choices=choices), seconds=1.23456)
    refused = replace(record, refused="too long", understood=None)
    line, told = write(record, refused)
    assert line["question"] == ["I", "1", "2", "Q"]
    assert line["shots"] == [1, 2]
    assert line["groups"] == ["stem", "maths"]
    assert line["choices"] == [[" A", -0.3333], [" B", -2.0]]
    assert line["seconds"] == 1.235
    assert "refused" not in line
    assert (told["refused"], told["understood"]) == ("too long", None)


def test_pictures_are_named_by_what_they_are(fakes, write, tmp_path):
    seen, drawn, truth = (fakes.noise_picture(seed) for seed in range(3))
    record = fakes.make_record(
        *("a", "a"), pictures=[drawn, seen], truth=truth, conversation=ask("q", [seen, truth])
    )
    shelf = PictureShelf(tmp_path)
    [line] = write(record, shelf=shelf)
    names = [shelf.keep(picture) for picture in (seen, drawn, truth)]
    assert line["pictures_read"] == [names[0], names[2]]
    assert line["pictures_drawn"] == [names[1], names[0]]
    assert line["pictures_wanted"] == [names[2]]
    assert line["num_pictures"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    [plain] = write(fakes.make_record("a", "a", conversation=ask("q")), shelf=shelf)
    assert not [key for key in plain if key.startswith("pictures_")]


def test_of_many_examples_the_pictures_of_some_are_kept_evenly(fakes, write, tmp_path):
    records = [
        fakes.make_record("a", "a", number, conversation=ask("q", [fakes.noise_picture(number)]))
        for number in range(10)
    ]
    lines = write(*records, shelf=PictureShelf(tmp_path), most=4)
    assert [n for n, line in enumerate(lines) if "pictures_read" in line] == [0, 2, 5, 7]
    assert len(list(tmp_path.iterdir())) == 4
