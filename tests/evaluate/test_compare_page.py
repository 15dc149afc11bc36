"""The page of a comparison shows the examples on which two models part, with their pictures."""

import re
from html.parser import HTMLParser

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.compare import compare_evaluations
from mllm_npu.evaluate.compare_page import render_comparison, write_comparison
from mllm_npu.evaluate.picture_shelf import PictureShelf


class Balanced(HTMLParser):
    """Fails on a tag that is not closed or closes another."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def body(html):
    return html.partition("<body>")[2]


@pytest.fixture
def sides(write_evaluation, tmp_path):
    """Writes scores of a quiz for A and B, with what each line has beside them."""

    def write(scores_a, scores_b, *, a=None, b=None, **options):
        for name, scores, changes in (("a", scores_a, a), ("b", scores_b, b)):
            rows = [("quiz", f"e{n}", float(score)) for n, score in enumerate(scores)]
            write_evaluation(
                tmp_path / name, *rows, model=name.upper() * 3, **options, **changes or {}
            )
        return compare_evaluations(tmp_path / "a", tmp_path / "b")

    return write


def test_the_page_is_well_formed_and_needs_nothing_from_outside(sides):
    html = render_comparison(sides("0011", "1010"))
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert all(source.startswith(("data:image/", "#task-")) for source in parser.sources)
    assert "<script" not in html
    assert not re.search(r"url\(", html)


def test_examples_that_flipped_are_shown_and_no_others(sides):
    html = body(render_comparison(sides("0011", "1010")))
    assert re.findall(r"<code>(e\d)</code>", html) == ["e0", "e3"]
    assert "B scores higher" in html
    assert "B scores lower" in html
    assert "exact McNemar" in html


def test_texts_of_models_and_data_are_escaped(sides):
    html = body(
        render_comparison(
            sides(
                *("0", "1"),
                question=["<b>Which?</b>"],
                answer="<i>",
                b={"reply": "<script>alert(1)</script>", "understood": None},
                a={"refused": "<u>"},
            )
        )
    )
    for text in ("&lt;b&gt;Which?", "&lt;i&gt;", "&lt;script&gt;alert", "refused: &lt;u&gt;"):
        assert text in html
    assert "<script" not in html
    assert "not understood" in html


def test_pictures_read_drawn_and_wanted_are_on_the_page(sides, fakes, tmp_path):
    kept = {
        name: PictureShelf(tmp_path / folder / "pictures").keep(fakes.noise_picture(seed))
        for seed, (name, folder) in enumerate(
            [("read", "a"), ("wanted", "b"), ("drawn_a", "a"), ("drawn_b", "b")]
        )
    }
    found = sides(
        *("0", "1"),
        pictures_read=[kept["read"]],
        pictures_wanted=[kept["wanted"]],
        num_pictures=1,
        a={"pictures_drawn": [kept["drawn_a"]]},
        b={"pictures_drawn": [kept["drawn_b"]]},
    )
    html = body(render_comparison(found))
    assert len(set(re.findall(r"data:image/png;base64,[^\"]+", html))) == 4
    assert 'alt="shown to the model"' in html
    assert 'alt="as it should be"' in html
    assert "no copy kept" not in html
    (tmp_path / "b" / "pictures" / kept["drawn_b"]).unlink()
    html = body(render_comparison(found))
    assert "(1 drawn, no copy kept)" in html


def test_a_name_that_is_no_copy_is_never_opened(sides, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "secret.png").write_bytes(b"secret")
    html = render_comparison(sides("0", "1", pictures_read=["../secret.png", "/etc/passwd"]))
    assert "data:image" not in body(html)


def test_of_many_flips_some_are_shown_evenly(sides):
    html = body(render_comparison(sides("0" * 30, "1" * 30), most_cards=3))
    assert re.findall(r"<code>(e\d+)</code>", html) == ["e0", "e10", "e20"]
    assert "30, 3 of them shown" in " ".join(html.split())


def test_of_unequal_flips_the_largest_are_shown(sides):
    scores = [0.1, 0.9, 0.2, 0.8]
    html = body(render_comparison(sides([0.0] * 4, scores), most_cards=2))
    assert re.findall(r"<code>(e\d+)</code>", html) == ["e1", "e3"]


def test_a_difference_that_is_not_chance_is_marked(sides):
    assert 'class="line up"' in render_comparison(sides("0" * 8, "1" * 8))
    assert 'class="line down"' in render_comparison(sides("1" * 8, "0" * 8))
    assert 'class="line "' in render_comparison(sides("0011", "1010"))


def test_a_benchmark_whose_number_is_no_mean_says_so(sides, write_evaluation, tmp_path):
    told = "is no mean of these scores"
    assert told not in render_comparison(sides("0011", "1010", figures={"quiz": 0.5}))
    assert told in render_comparison(sides("0011", "1010", figures={"quiz": 0.61}))


def test_equal_evaluations_have_a_page_too(sides):
    html = body(render_comparison(sides("01", "01")))
    assert "B scores" not in html
    assert "left: 50.0%" in html


def test_the_page_is_written_whole_or_not_at_all(sides, tmp_path):
    found = sides("01", "10")
    write_comparison(tmp_path / "new" / "page.html", found)
    assert (tmp_path / "new" / "page.html").read_text() == render_comparison(found)
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(DataError, match=r"taken\.html cannot be written"):
        write_comparison(tmp_path / "taken.html", found)
