from types import SimpleNamespace

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.models.fit import require_drawing, require_reading, require_weight


def language(width=32):
    return SimpleNamespace(width=width)


def vision(width=16, num_tokens=16):
    return SimpleNamespace(width=width, num_tokens=num_tokens)


def projector(input_dim, output_dim, num_queries=4, num_tokens=None):
    return SimpleNamespace(
        input_dim=input_dim, output_dim=output_dim, num_queries=num_queries, num_tokens=num_tokens
    )


def sized(width=16, num_tokens=4):
    return SimpleNamespace(width=width, num_tokens=num_tokens)


def drawing(**changes):
    parts = {
        "language_model": language(),
        "vision_encoder": vision(),
        "output_projector": projector(32, 16),
        "image_decoder": sized(),
        "drawn_features": sized(),
    }
    return require_drawing(**(parts | changes))


def test_parts_that_fit_pass():
    require_reading(language(), vision(), projector(16, 32))
    require_reading(language(), vision(), projector(16, 32, num_tokens=16))
    drawing()
    drawing(image_decoder=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (projector(15, 32), r"projector.input_dim=15 .* vision_encoder.width=16"),
        (projector(16, 31), r"projector.output_dim=31 .* language_model.width=32"),
        (projector(16, 32, num_tokens=9), r"projector.num_tokens=9 .*num_tokens=16"),
    ],
)
def test_a_projector_that_does_not_fit_is_refused_with_both_numbers(wrong, message):
    with pytest.raises(ConfigError, match=message):
        require_reading(language(), vision(), wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawn_features": sized(width=8)}, r"drawn_features.width=8 .* vision_encoder.width=16"),
        ({"output_projector": projector(30, 16)}, r"input_dim=30 .* language_model.width=32"),
        ({"output_projector": projector(32, 15)}, r"output_dim=15 .* drawn_features.width=16"),
        ({"output_projector": projector(32, 16, 9)}, r"num_queries=9 .*num_tokens=4"),
        ({"output_projector": projector(32, 16, 4, 5)}, r"num_tokens=5 .*num_tokens=4"),
        ({"image_decoder": sized(width=8)}, r"image_decoder.width=8 .* drawn_features.width=16"),
        ({"image_decoder": sized(num_tokens=9)}, r"image_decoder.num_tokens=9 .*num_tokens=4"),
        ({"vision_encoder": vision(num_tokens=1)}, r"num_tokens=4 cannot be pooled .*=1"),
        ({"output_projector": None}, "SEED needs output_projector and got none"),
        ({"drawn_features": None}, "SEED needs drawn_features and got none"),
    ],
)
def test_drawing_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        drawing(**changes)


def test_a_weight_is_a_factor_from_zero_on():
    require_weight("image_weight", 0.0)
    for weight in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"image_weight={weight}"):
            require_weight("image_weight", weight)
