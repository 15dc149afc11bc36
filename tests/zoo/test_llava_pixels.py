"""What an image processor's file says becomes ours, or is refused."""

import json

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.zoo.hub_folder import HubFolder
from mllm_npu.zoo.llava_pixels import read_pixels

SQUARE = {"height": 28, "width": 28}
CLIP = {"size": {"shortest_edge": 28}, "crop_size": SQUARE}
GRIDS = [[28, 56], [56, 56]]


@pytest.fixture
def hub(tmp_path):
    def make(values, *, family="llava", nested=False, **config):
        name = "processor_config.json" if nested else "preprocessor_config.json"
        (tmp_path / name).write_text(json.dumps({"image_processor": values} if nested else values))
        return HubFolder(path=tmp_path, config={"model_type": family, **config}, shards=())

    return make


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({**CLIP, "image_processor_type": "CLIPImageProcessor"}, {"fit": "crop"}),
        ({**CLIP, "image_processor_type": "LlavaImageProcessorFast"}, {"fit": "crop"}),
        (
            {**CLIP, "image_processor_type": "LlavaImageProcessor", "do_pad": True},
            {"fit": "pad", "background": [122, 116, 104]},
        ),
        ({"size": SQUARE, "image_processor_type": "SiglipImageProcessor"}, {"fit": "stretch"}),
        ({**CLIP, "size": {"shortest_edge": 32}}, {"fit": "crop", "shortest_edge": 32}),
        ({**CLIP, "size": 28, "crop_size": 28}, {"fit": "crop", "shortest_edge": None}),
    ],
)
def test_one_tile(hub, values, expected, nested):
    pixels = read_pixels(hub(values, nested=nested), tile_size=28)
    assert pixels.tiling["_target_"].endswith("SingleTile")
    assert pixels.tiling["tile_size"] == 28
    assert {key: pixels.tiling[key] for key in expected} == expected
    assert len(pixels.mean) == len(pixels.std) == 3


def test_joined_tiles(hub):
    values = {**CLIP, "image_grid_pinpoints": GRIDS}
    pixels = read_pixels(hub(values, family="llava_next", image_grid_pinpoints=GRIDS), tile_size=28)
    assert pixels.tiling["grids"] == ["2x1", "2x2"]
    assert "max_grid_tiles" not in pixels.tiling
    assert pixels.mean[0] == pytest.approx(0.48145466)


def test_joined_tiles_that_are_shrunk(hub):
    values = {"size": SQUARE, "image_grid_pinpoints": GRIDS, "image_mean": [0.5] * 3}
    told = {"vision_aspect_ratio": "anyres_max_4", "image_grid_pinpoints": GRIDS}
    pixels = read_pixels(hub(values, family="llava_onevision", **told), tile_size=28)
    assert pixels.tiling["max_grid_tiles"] == 4
    assert pixels.tiling["one_tile_in_company"]
    assert pixels.tiling["background"] == [127, 127, 127]


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ({}, {}, "neither preprocessor_config"),
        ({**CLIP, "image_processor_type": "ViTImageProcessor"}, {}, "ViTImageProcessor is not"),
        ({**CLIP, "resample": 2}, {}, "resample=2"),
        ({**CLIP, "do_normalize": False}, {}, "do_normalize=False"),
        ({**CLIP, "rescale_factor": 1.0}, {}, "rescale_factor"),
        ({**CLIP, "crop_size": {"height": 24, "width": 28}}, {}, "crop_size is 24x28"),
        ({**CLIP, "do_center_crop": False}, {}, "no fixed size"),
        ({"size": {"height": 20, "width": 28}, "do_center_crop": False}, {}, "size is 20x28"),
        (
            {**CLIP, "image_grid_pinpoints": [[28, 30]]},
            {"family": "llava_next"},
            "no whole tiles of 28",
        ),
        (
            {**CLIP, "image_grid_pinpoints": GRIDS},
            {"family": "llava_next", "image_grid_pinpoints": GRIDS[:1]},
            "of different releases|differ",
        ),
        (
            {"size": SQUARE, "image_grid_pinpoints": GRIDS},
            {"family": "llava_onevision", "vision_aspect_ratio": "anyres"},
            "vision_aspect_ratio=anyres",
        ),
    ],
)
def test_what_is_not_done_here_is_refused(hub, values, settings, message):
    with pytest.raises(ConfigError, match=message):
        read_pixels(hub(values, **settings), tile_size=28)
