"""Read how a released LLaVA model cuts its pictures, and say it as values of our configuration."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.zoo.hub_folder import HubFolder

Values = dict[str, Any]

_PROCESSING = "mllm_npu.processing"
_BICUBIC = 3
_LEVELS = 255
_KINDS: Mapping[str, str] = {
    "CLIPImageProcessor": "clip.image_processing_pil_clip",
    "LlavaImageProcessor": "llava.image_processing_pil_llava",
    "SiglipImageProcessor": "siglip.image_processing_pil_siglip",
    "LlavaNextImageProcessor": "llava_next.image_processing_pil_llava_next",
    "LlavaOnevisionImageProcessor": "llava_onevision.image_processing_pil_llava_onevision",
}
"""Image processors, and the module of transformers that computes each without torchvision."""

_OF_FAMILY = {
    "llava": "CLIPImageProcessor",
    "llava_next": "LlavaNextImageProcessor",
    "llava_onevision": "LlavaOnevisionImageProcessor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What a model's image processor does.

    Args:
        tiling: values of ``processor.any_resolution``.
        mean: subtracted from each channel of a picture in 0..1.
        std: divides each channel after that.
    """

    tiling: Values
    mean: list[float]
    std: list[float]


def read_pixels(hub: HubFolder, *, tile_size: int) -> Pixels:
    """The pixel rules of a folder.

    Args:
        hub: the folder.
        tile_size: pixels of the edge that its vision encoder sees.

    Raises:
        ConfigError: no image processor, or one that does what is not done here.
    """
    values = _processor_values(hub)
    named = str(values.get("image_processor_type") or _OF_FAMILY[hub.model_type])
    kind = re.sub(r"(Fast|Pil)$", "", named)
    if kind not in _KINDS:
        raise ConfigError(
            f"{hub.path}: image_processor_type={named} is not known for {hub.model_type}. Known "
            f"are {', '.join(_KINDS)}."
        )
    rules = _build(kind, values)
    _require_known(hub, rules)
    levels = {"mean": list(map(float, rules.image_mean)), "std": list(map(float, rules.image_std))}
    background = [int(level * _LEVELS) for level in levels["mean"]]
    if hub.model_type == "llava":
        tiling = _single(rules, tile_size, background)
    else:
        tiling = _joined(hub, rules, tile_size, background)
    return Pixels(tiling=tiling, **levels)


def _processor_values(hub: HubFolder) -> Values:
    """The image processor's settings, from whichever file has them."""
    nested = hub.read_json("processor_config.json").get("image_processor")
    values = nested if isinstance(nested, dict) else hub.read_json("preprocessor_config.json")
    if not values:
        raise ConfigError(
            f"{hub.path} has neither preprocessor_config.json nor an image_processor in "
            "processor_config.json. The download is not complete; get them."
        )
    return dict(values)


def _build(kind: str, values: Values) -> Any:
    """The library's own object, which knows its defaults and older spellings of the settings."""
    module = importlib.import_module(f"transformers.models.{_KINDS[kind]}")
    told = {key: value for key, value in values.items() if not key.endswith("_type")}
    return getattr(module, f"{kind}Pil")(**told)


def _require_known(hub: HubFolder, rules: Any) -> None:
    asked = {
        "do_resize": (rules.do_resize, True),
        "do_rescale": (rules.do_rescale, True),
        "do_normalize": (rules.do_normalize, True),
        "resample": (int(rules.resample), _BICUBIC),
        "rescale_factor": (round(1 / float(rules.rescale_factor), 6), float(_LEVELS)),
    }
    other = [f"{name}={found}" for name, (found, known) in asked.items() if found != known]
    if other:
        raise ConfigError(
            f"{hub.path}: the image processor has {', '.join(other)}; here pictures are resized "
            "by Pillow's bicubic (3), divided by 255 and normalised."
        )


def _single(rules: Any, tile_size: int, background: list[int]) -> Values:
    shortest, crops = rules.size.shortest_edge, bool(rules.do_center_crop)
    values: Values = {
        "_target_": f"{_PROCESSING}.single_tile.SingleTile",
        "tile_size": tile_size,
        "background": background,
    }
    if shortest is None:
        _require_edge("size", (rules.size.height, rules.size.width), tile_size)
        return {**values, "fit": "stretch"}
    pads = bool(getattr(rules, "do_pad", False))
    if crops:
        _require_edge("crop_size", (rules.crop_size.height, rules.crop_size.width), tile_size)
    elif not pads:
        raise ConfigError(
            "The image processor neither crops pictures nor makes them square, so they have no "
            "fixed size. Set do_center_crop or do_pad in its file."
        )
    fit = "pad" if pads else "crop"
    return {**values, "fit": fit, "shortest_edge": None if shortest == tile_size else shortest}


def _joined(hub: HubFolder, rules: Any, tile_size: int, background: list[int]) -> Values:
    edge = rules.size.shortest_edge
    size = (rules.size.height, rules.size.width) if edge is None else (edge, edge)
    _require_edge("size", size, tile_size)
    if rules.do_center_crop and rules.crop_size is not None:
        _require_edge("crop_size", (rules.crop_size.height, rules.crop_size.width), tile_size)
    told = [[int(side) for side in pair] for pair in rules.image_grid_pinpoints]
    own = hub.config.get("image_grid_pinpoints")
    if own is not None and [list(pair) for pair in own] != told:
        raise ConfigError(
            f"{hub.path}: image_grid_pinpoints of config.json and of the image processor differ. "
            "Make them equal; they came from different releases."
        )
    values: Values = {
        "_target_": f"{_PROCESSING}.joined_tiles.JoinedTiles",
        "tile_size": tile_size,
        "grids": [_grid(pair, tile_size) for pair in told],
    }
    if hub.model_type == "llava_onevision":
        values["max_grid_tiles"] = _max_tiles(hub)
        values["one_tile_in_company"] = True
        values["background"] = background
    return values


def _grid(pair: list[int], tile_size: int) -> str:
    height, width = pair
    if height % tile_size or width % tile_size:
        raise ConfigError(
            f"image_grid_pinpoints has {height}x{width} pixels, which are no whole tiles of "
            f"{tile_size}. Give multiples of that."
        )
    return f"{width // tile_size}x{height // tile_size}"


def _max_tiles(hub: HubFolder) -> int:
    ratio = str(hub.config.get("vision_aspect_ratio", "anyres_max_9"))
    told = hub.read_json("processor_config.json").get("vision_aspect_ratio", ratio)
    found = re.fullmatch(r"anyres_max_(\d+)", ratio)
    if found is None or told != ratio:
        raise ConfigError(
            f"{hub.path}: vision_aspect_ratio={ratio} (and {told} of the processor) was found; "
            "anyres_max_ and a number, the same in both files, is known."
        )
    return int(found[1])


def _require_edge(name: str, found: tuple[Any, Any], tile_size: int) -> None:
    if found != (tile_size, tile_size):
        raise ConfigError(
            f"The image processor's {name} is {found[0]}x{found[1]}, the vision encoder sees "
            f"{tile_size}x{tile_size} pixels. Both are one in a released model; get it again."
        )
