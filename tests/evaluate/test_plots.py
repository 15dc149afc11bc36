import xml.etree.ElementTree as ET

from mllm_npu.evaluate.plots import loss_curves

CURVES = {
    "loss": [(10, 3.0), (20, 2.0)],
    "terms/language": [(10, 1.0), (20, 0.5)],
    "loss_per_task/pure_text": [(10, 1.0)],
}


def test_curves_are_one_svg_in_the_colours_of_the_page():
    svg = loss_curves("mllm", CURVES)
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_names_are_readable():
    svg = loss_curves("mllm", CURVES)
    assert ">language<" in svg
    assert ">pure text<" in svg
    assert "terms/" not in svg


def test_two_plots_on_a_page_share_no_ids():
    first, second = (
        {
            element.get("id")
            for element in ET.fromstring(loss_curves(title, CURVES)).iter()
            if element.tag.endswith("clipPath")
        }
        for title in ("vision", "decoder")
    )
    assert first
    assert not first & second


def test_names_cannot_bring_markup():
    svg = loss_curves("x", {"<script>alert(1)</script>": [(1, 1.0)]})
    assert "<script>" not in svg


def test_losses_below_zero_and_no_losses_at_all_are_drawn():
    assert "<svg" in loss_curves("x", {"loss": [(1, -1.0), (2, 0.0)]})
    assert "<svg" in loss_curves("x", {})
