from types import SimpleNamespace

import pytest
import torch

from mllm_npu.build import build_model, build_processor
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.model_fit import check_fit

FITTING = {
    "tokenizer": range(10),
    "num_read_tokens": 4,
    "num_drawn_tokens": 9,
    "max_tokens": 64,
    "any_resolution": SimpleNamespace(tile_size=16),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": range(11)}, r"11 tokens.*10 rows"),
        ({"num_read_tokens": 9}, r"num_read_tokens=9 does not fit.*needs 4"),
        ({"num_drawn_tokens": 0}, r"num_drawn_tokens=0 does not fit.*needs 9"),
        ({"any_resolution": SimpleNamespace(tile_size=32)}, r"tile_size=32 .*needs 16"),
        ({"max_tokens": 65}, r"max_tokens=65.*at most 64"),
        ({"any_resolution": SimpleNamespace(tile_size=16, joins=True)}, r"models.newline=true"),
    ],
)
def test_processor_and_model_must_agree(change, message):
    model = SimpleNamespace(
        language_model=SimpleNamespace(vocab_size=10, max_tokens=64),
        projector=SimpleNamespace(num_queries=4),
        vision_encoder=SimpleNamespace(tile_size=16),
        drawn_features=SimpleNamespace(num_tokens=9),
    )
    check_fit(model, SimpleNamespace(**FITTING))
    with pytest.raises(ConfigError, match=message):
        check_fit(model, SimpleNamespace(**{**FITTING, **change}))


def test_a_reader_with_the_processor_of_its_configuration_fits(world):
    """Nothing is drawn, so no room for drawn pictures is asked for."""
    config = load_config(
        "training", [f"world_dir={world}", "models=mllm_tiny", "objective=comprehension"]
    )
    with torch.device("meta"):
        check_fit(build_model(config), build_processor(config))
    assert config.processor.num_drawn_tokens == 0


def test_joined_tiles_need_a_newline_and_no_tile_that_sees_itself():
    joining = SimpleNamespace(
        **{**FITTING, "any_resolution": SimpleNamespace(tile_size=16, joins=True)}
    )
    parts = {
        "language_model": SimpleNamespace(vocab_size=10, max_tokens=64),
        "projector": SimpleNamespace(num_queries=4),
        "vision_encoder": SimpleNamespace(tile_size=16),
        "newline": torch.zeros(3),
    }
    check_fit(SimpleNamespace(**parts), joining)
    with pytest.raises(ConfigError, match=r"bidirectional_images=true"):
        check_fit(SimpleNamespace(**parts, bidirectional_images=True), joining)
    with pytest.raises(ConfigError, match=r"a newline to end rows with.*models.newline=false"):
        check_fit(SimpleNamespace(**parts), SimpleNamespace(**FITTING))
