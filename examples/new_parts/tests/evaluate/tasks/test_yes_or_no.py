"""The first word of a reply counts."""

import json

import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.tasks.yes_or_no import YesOrNo
from mllm_npu.inference.options import GenerationOptions


def test_the_first_word_counts(tmp_path, write_replies):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    row = {"picture": "a.png", "question": "Is it dark?", "answer": "yes"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    task = YesOrNo(data=tmp_path, options=GenerationOptions())
    said = {"Yes, it is.": 1, "No.": 0, "It is.": 0}
    for text, score in said.items():
        [record] = write_replies(task, lambda _, text=text: text)
        assert record.score == score
    assert record.understood is None
    assert task.figures([record])[0].num_unread == 1


def test_without_its_file_it_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl was asked for"):
        YesOrNo(data=tmp_path, options=GenerationOptions()).examples()
