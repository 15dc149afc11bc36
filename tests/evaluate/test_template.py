"""Pages share their style and escape what is put into them."""

import re

import pytest
from jinja2 import UndefinedError

from mllm_npu.evaluate import template
from mllm_npu.evaluate.template import FOLDER, fill_template


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(template, "FOLDER", tmp_path)
    return tmp_path


def test_what_is_put_in_is_escaped_and_what_is_there_is_not(folder):
    (folder / "style.css").write_text("a > b { color: red; }")
    (folder / "page.html").write_text(
        "<p>{{ said }}</p>{% include 'style.css' %}{{ 0.5 | number }}"
    )
    filled = fill_template("page.html", said="<script>&")
    assert filled == "<p>&lt;script&gt;&amp;</p>a > b { color: red; }0.5"


def test_a_value_that_is_forgotten_is_no_empty_text(folder):
    (folder / "page.html").write_text("{{ forgotten }}")
    with pytest.raises(UndefinedError, match="forgotten"):
        fill_template("page.html")


def test_all_pages_take_the_one_style_sheet():
    pages = [path for path in FOLDER.glob("*.html") if "<html" in path.read_text(encoding="utf-8")]
    assert len(pages) == 2
    for page in pages:
        assert '{% include "page.css" %}' in page.read_text(encoding="utf-8"), page


def test_no_page_sets_colours_of_its_own():
    for page in FOLDER.glob("*.html"):
        assert not re.search(r"#[0-9a-f]{3,8}\b[^\"]", page.read_text(encoding="utf-8")), page
