import json

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.plan.page import list_sources, make_cards, rank_rows, render_page, write_page
from mllm_npu.plan.search import Candidate


def test_page_and_values_are_written(make_plan, tmp_path):
    made = make_plan()
    page = write_page(made, tmp_path / "a" / "b")
    assert page.name == "plan.html"
    values = json.loads((page.parent / "plan.json").read_text(encoding="utf-8"))
    assert values == json.loads(json.dumps(made.as_values()))


def test_the_page_shows_everything(make_plan):
    html = render_page(make_plan())
    for shown in (
        "Plan of made/by_hand", "8 x made by hand (one node)", "21.00 GiB",
        "57.60 GiB usable of a device", "matrix products", "forward: vision encoder",
        "It would be faster.", "parallel.recompute=none", "1000 ranks", "polyline",
        "Made &lt;by&gt; hand.",
    ):  # fmt: skip
        assert shown in html, shown
    assert "Settings, best first" not in html
    assert "<script" not in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_settings_are_shown_after_a_search(make_plan):
    made = make_plan()
    tried = [
        Candidate(setting=made.outcome.setting, outcome=made.outcome),
        Candidate(setting=made.outcome.setting, outcome=None, refused="<heads>"),
    ]
    plan = make_plan(candidates=tried)
    rows = rank_rows(plan)
    assert rows[0]["own"]
    assert rows[0]["share"] == 100
    assert rows[1]["refused"] == "<heads>"
    html = render_page(plan)
    assert "Settings, best first" in html
    assert "&lt;heads&gt;" in html


def test_a_run_that_does_not_fit_is_marked(make_plan):
    cards = make_cards(make_plan(kept={"peak": 90 << 30}))
    assert cards[0].met is False
    assert "does not fit" in render_page(make_plan(kept={"peak": 90 << 30}))


def test_every_number_names_its_source():
    from mllm_npu.build import build_part
    from mllm_npu.config import load_config

    cluster = build_part(load_config("planning", ["cluster=910b3_64"]).cluster)
    sources = dict(list_sources(cluster))
    assert "RoCE" in sources["links between nodes"]
    assert "msmodeling" in sources["efficiency"]


def test_a_folder_that_cannot_be_written_is_said(make_plan, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(make_plan(), tmp_path / "file" / "below")
