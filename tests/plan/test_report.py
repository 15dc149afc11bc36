import io

from rich.console import Console

from mllm_npu.plan.report import bar, render, show
from mllm_npu.plan.search import Candidate


def text_of(plan, width=140):
    console = Console(width=width, record=True, file=io.StringIO())
    show(plan, console)
    return console.export_text()


def test_a_bar_has_eighths():
    assert bar(0.0) == ""
    assert bar(0.5, 4) == "██"
    assert bar(1.0, 4) == "████"
    assert bar(9.9, 4) == "████"
    assert bar(0.03125, 4) == "▏"


def test_everything_is_told(make_plan):
    text = text_of(make_plan())
    for told in (
        "made/by_hand on 8 x made by hand (one node)",
        "fsdp2, recompute full, 1 x 4096 tokens",
        "activations", "10.00 GiB", "needed, of 57.60 GiB", "21.00 GiB",
        "matrix products", "bandwidth of the memory", "waiting for other ranks",
        "exchanges hidden behind computation",
        "MFU", "576 device hours", "1,152", "goodput 90.0%",
        "8 ranks:", "1000 ranks:", "failures a day", "Young",
        "It would be faster.", "parallel.recompute=none", "Made <by> hand.",
    ):  # fmt: skip
        assert told in text, told
    assert "does not fit" not in text


def test_what_is_too_large_is_said(make_plan):
    text = text_of(make_plan(kept={"peak": 90 << 30}, advice=None))
    assert "does not fit" in text
    assert "It would be faster." not in text


def test_settings_are_ranked(make_plan):
    made = make_plan()
    own = Candidate(setting=made.outcome.setting, outcome=made.outcome)
    refused = Candidate(setting=made.outcome.setting, outcome=None, refused="heads do not divide")
    text = text_of(make_plan(candidates=[own, refused]))
    assert "fits" in text
    assert "heads do not divide" in text


def test_an_unknown_price_says_how_to_set_it(make_plan):
    from mllm_npu.plan.plan import Price

    price = Price(tokens=1e9, days=3.0, device_hours=576.0, cost=None)
    assert "plan.price_per_hour=" in text_of(make_plan(price=price))


def test_markup_of_others_is_not_read(make_plan):
    assert "[red]x[/red]" in text_of(make_plan(notes=["[red]x[/red]"]))
    assert render(make_plan()) is not None
