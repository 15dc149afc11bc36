import json

import pytest
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.question_file import read_questions


def write(path, *lines):
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_lines_become_questions_with_pictures_beside_the_file(tmp_path):
    first, second = read_questions(
        write(
            tmp_path / "q.jsonl",
            {"prompt": "One?", "images": ["a.png"], "max_new_tokens": 3, "system": "Be brief."},
            "",
            {"id": "b", "prompt": "Two?", "drawing": "force"},
        )
    )
    assert (first.key, second.key) == ("1", "b")
    assert first.images == (tmp_path / "a.png",)
    assert (first.system, first.options) == ("Be brief.", {"max_new_tokens": 3})
    assert (second.images, second.options) == ((), {"images": "force"})


def test_a_folder_is_one_question_for_each_picture(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    questions = read_questions(tmp_path, "Which digit?")
    assert [(q.key, q.prompt) for q in questions] == [
        ("a.JPG", "Which digit?"),
        ("b.png", "Which digit?"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[]", "line 1 is no object"),
        ({"prompt": "Hi", "temprature": 1}, "has temprature; known are id, prompt"),
        ({"prompt": 3}, "needs a prompt that is text"),
        ({"prompt": "Hi", "images": "a.png"}, "images as a list"),
        ({"id": "x"}, "needs a prompt"),
        ("", "has no line"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path, line, message):
    with pytest.raises(RequestError, match=message):
        read_questions(write(tmp_path / "q.jsonl", line))


def test_what_does_not_go_together_is_refused(tmp_path):
    path = write(tmp_path / "q.jsonl", {"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"})
    with pytest.raises(RequestError, match="the id '1' twice"):
        read_questions(path)
    with pytest.raises(RequestError, match="has a prompt in each line"):
        read_questions(path, "Hello")
    with pytest.raises(RequestError, match="is not there"):
        read_questions(tmp_path / "gone.jsonl")
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(RequestError, match="has no pictures"):
        read_questions(folder, "Hi")
    Image.new("RGB", (2, 2)).save(folder / "a.png")
    with pytest.raises(RequestError, match="Give a prompt"):
        read_questions(folder)
