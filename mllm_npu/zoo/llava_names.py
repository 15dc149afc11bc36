"""Names of a LLaVA model's values as the Hub has them, which transformers and vLLM read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mllm_npu.errors import WeightsError

_HUB_NAMES = (
    (r"^vision_encoder\.vision_model\.", "vision_tower.vision_model."),
    (r"^projector\.mlp\.0\.", "multi_modal_projector.linear_1."),
    (r"^projector\.mlp\.2\.", "multi_modal_projector.linear_2."),
    (r"^language_model\.causal_lm\.", "language_model."),
    (r"^newline$", "image_newline"),
)
_SHOWN = 4


def untied_values(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a value of several names stands under the first.

    A model without memory is told apart by its objects.
    """
    values: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            values[name] = value.detach()
    return values


def hub_names(names: Iterable[str]) -> dict[str, str]:
    """Name on the Hub of every name of a model.

    Raises:
        WeightsError: one that no LLaVA model has.
    """
    found: dict[str, str] = {}
    strange: list[str] = []
    for name in names:
        renamed = next(
            (re.sub(old, new, name) for old, new in _HUB_NAMES if re.match(old, name)), None
        )
        if renamed is None:
            strange.append(name)
        else:
            found[name] = renamed
    if strange:
        raise WeightsError(
            f"The model has {len(strange)} values that no LLaVA model of transformers has: "
            f"{', '.join(strange[:_SHOWN])}. Export models with MLPProjector(norm=False, depth=2) "
            "and without patch_positions."
        )
    return found


def memory_name(name: str) -> str:
    """Name of a value of the Hub inside a model of transformers 5, as its ``state_dict`` has it."""
    renames = (
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^vision_tower\.vision_model\.", "model.vision_tower."),
        (r"^(multi_modal_projector\.|image_newline$)", r"model.\1"),
    )
    for old, new in renames:
        name = re.sub(old, new, name)
    return name


def require_values(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse values that are not exactly those of a model of transformers.

    Args:
        found: by names of the Hub.
        wanted: ``state_dict`` of that model, its values perhaps without memory.

    Raises:
        WeightsError: names that are missing, too many or of another shape.
    """
    shapes = {memory_name(name): tuple(value.shape) for name, value in found.items()}
    needed = {name: tuple(value.shape) for name, value in wanted.items()}
    lacking, extra = sorted(set(needed) - set(shapes)), sorted(set(shapes) - set(needed))
    other = sorted(name for name in set(needed) & set(shapes) if needed[name] != shapes[name])
    if lacking or extra or other:
        told = [
            f"{len(names)} {what} ({', '.join(names[:_SHOWN])})"
            for what, names in (
                ("missing", lacking),
                ("that it lacks", extra),
                ("of another shape", other),
            )
            if names
        ]
        raise WeightsError(
            f"The model's values do not fit the model of transformers: {'; '.join(told)}. The "
            "configuration was changed since it was imported; export it as it was trained."
        )
