import pytest

from mllm_npu.build import build_part
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.plan.options import PlanOptions


def load(*overrides):
    return build_part(load_config("planning", list(overrides)).plan)


def test_the_shipped_ones():
    options = load()
    assert isinstance(options, PlanOptions)
    assert options.train_tokens is None
    assert options.search.parallel == ["fsdp2", "hsdp"]
    assert 0 < options.goodput.step_spread < 0.1


def test_they_are_set_on_the_command_line():
    options = load(
        "plan.train_tokens=1e9",
        "plan.price_per_hour=2",
        "plan.search.recompute=[full]",
        "plan.goodput.ranks=[100]",
    )
    assert options.train_tokens == 1e9
    assert options.price_per_hour == 2
    assert options.search.recompute == ["full"]
    assert options.goodput.ranks == [100]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plan.train_tokens=0", "plan.train_tokens=0"),
        ("plan.megapixels_per_second=-1", "megapixels_per_second=-1"),
        ("plan.price_per_hour=-1", "price_per_hour=-1"),
        ("plan.tries=-1", "tries=-1"),
        ("plan.search.recompute=[]", "empty list"),
        ("plan.search.most=0", "most below 1"),
        ("plan.search.pack_scale=[0]", r"pack_scale=\[0\]"),
        ("plan.search.accumulate=[0]", r"accumulate=\[0\]"),
        ("plan.search.recompute=[half]", "plan.search.recompute"),
        ("plan.goodput.step_spread=-1", "step_spread=-1"),
        ("plan.goodput.ranks=[0]", r"ranks=\[0\]"),
        ("plan.tokens=5", "plan"),
    ],
)
def test_wrong_ones_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load(override)
