import json

import pytest

PAGE = "# Title\n<!-- figures:begin -->\nold\n<!-- figures:end -->\ntail\n"


@pytest.fixture
def script(load_script):
    return load_script("readme_figures")


@pytest.fixture
def report(script) -> dict:
    figures = {row.key: 0.9876 for row in script.DIGITS_ROWS}
    machine = {"device": "cpu", "processor": "EPYC", "cores": 2, "threads": 1}
    paper = {"machine": machine, "versions": {"torch": "2.13.0"}}
    return {"figures": figures | {"train_seconds": 222.6}} | paper


def test_fills_both_languages_and_nothing_else(script, report, tmp_path):
    for name in ("README.md", "README_ZH.md"):
        (tmp_path / name).write_text(PAGE, encoding="utf-8")
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    arguments = ["--figures", str(path), "--figures-scenes", "absent", "--root", str(tmp_path)]
    for _ in range(2):  # filling what is filled already changes nothing
        assert script.main(arguments) == 0
        english = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert english.startswith("# Title\n<!-- figures:begin -->\n| measured on held-out data")
        assert english.endswith("<!-- figures:end -->\ntail\n")
        assert "old" not in english
        assert "| which digit is it (`comprehension_accuracy`) | 98.8% | ≥ 98 % |" in english
        assert "(`train_seconds`) | 223 |" in english
        assert "measured on EPYC, 2 cores, 1 threads, device cpu, torch 2.13.0." in english
    chinese = (tmp_path / "README_ZH.md").read_text(encoding="utf-8")
    assert "| 识别数字 (`comprehension_accuracy`) | 98.8% | ≥ 98 % |" in chinese


def test_figures_may_lie_at_the_top_or_under_their_own_key(script, tmp_path):
    path = tmp_path / "report.json"
    for content in ({"figures": {"scenes_qa": 0.97}}, {"scenes_qa": 0.97}):
        path.write_text(json.dumps(content))
        assert script.read_figures(path)["scenes_qa"] == 0.97


def test_a_report_without_its_machine_is_refused(script):
    with pytest.raises(TypeError, match="machine and versions"):
        script.describe_machine({"machine": "one", "versions": {}})


def test_a_missing_figure_is_no_hole_in_the_table(script, report):
    figures = report | report["figures"]
    del figures["draw_diversity"]
    with pytest.raises(KeyError, match="draw_diversity is not in"):
        script.table(figures, script.DIGITS_ROWS, script.LANGUAGES[0], "runs/x.json")


def test_a_page_without_the_region_is_refused(script):
    with pytest.raises(ValueError, match="figures:begin"):
        script.fill("# Title\n", "figures", "table")


def test_without_a_report_nothing_is_written(script, tmp_path, capsys):
    arguments = ["--figures", str(tmp_path / "a"), "--figures-scenes", str(tmp_path / "b")]
    assert script.main(arguments) == 2
    assert "Run make demo" in capsys.readouterr().err


def test_an_incomplete_report_leaves_the_page_alone(script, report, tmp_path, capsys):
    (tmp_path / "README.md").write_text(PAGE, encoding="utf-8")
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"machine": report["machine"]}))
    arguments = ["--figures", str(path), "--figures-scenes", "absent", "--root", str(tmp_path)]
    assert script.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: comprehension_accuracy is not in")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == PAGE


def test_the_readmes_have_every_region(script, root):
    for language in script.LANGUAGES:
        page = (root / language.file).read_text(encoding="utf-8")
        for region in script.REGIONS:
            assert script.fill(page, region, "new").count("new") >= 1
