"""The rows shown in data/data.md are read by the tasks they are shown for."""

import json
import re
from random import Random

import pytest

from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.pure_text import PureText

TASKS = {task.name: task for task in (Caption, Edit, Instruction, Interleaved, Ocr, PureText)}


def examples(path):
    found = re.findall(r"```json (\w+)\n(.*?)```", path.read_text(), flags=re.DOTALL)
    return {kind: json.loads(text) for kind, text in found}


def test_both_languages_show_the_same_rows_of_every_kind(root):
    english = examples(root / "data" / "data.md")
    assert english == examples(root / "data" / "data_zh.md")
    assert set(english) == set(TASKS)


@pytest.mark.parametrize("kind", TASKS)
def test_a_documented_row_becomes_a_sample(root, make_row, png, processor, kind):
    pictures = {"png": png(), "_0__png": png(), "_1__png": png()}
    if kind == "edit":
        pictures = {"source__png": png(), "target__png": png()}
    row = make_row(json_member=examples(root / "data" / "data.md")[kind], **pictures)
    talk = TASKS[kind]().to_conversation(row, Random(0))
    assert talk.task == kind
    assert (processor.encode(talk).labels >= 0).any()
