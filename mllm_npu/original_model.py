"""Turn a model configuration written for the original into the values that build the same here.

The original's page calls them ``configs/models/*.yaml`` (everything under ``mllm``) and
``configs/generation/*.yaml`` (the SDXL adapter); SEED-X has a file for each part of the former.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.original_names import TARGET, is_original, short_name

Values = dict[str, Any]

_WITHOUT_MEANING = ("_convert_", "_recursive_", "low_cpu_mem_usage", "image_start_id")
_WEIGHTS = (
    "pretrained_model_path",
    "pretrained_model_name_path",
    "pretrained_model_name_or_path",
)
_HALVES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "float16", "float16": "float16"}
_OBJECTIVE = "mllm_npu.train.objectives.mllm.MultimodalObjective"
_NEEDED = object()


class _Node:
    """A part of the original whose keys are taken one by one; none may be left over."""

    def __init__(self, values: Any, path: str) -> None:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path or 'the file'} is {values!r}, keys and values are needed.")
        self.values, self.path = dict(values), path

    @property
    def name(self) -> str:
        """Class or function of its target; "" where it has none of the original."""
        target = self.values.get(TARGET)
        return short_name(str(target)) if is_original(target) else ""

    def take(self, key: str, default: Any = _NEEDED) -> Any:
        value = self.values.pop(key, default)
        if value is _NEEDED:
            raise ConfigError(f"{self.where(key)} has no value and is needed. Add it to the file.")
        return value

    def child(self, *keys: str) -> _Node:
        """The part under the first of the keys that is there."""
        key = next((key for key in keys if key in self.values), keys[0])
        return _Node(self.take(key), self.where(key))

    def drop(self, *keys: str) -> None:
        for key in keys:
            self.values.pop(key, None)

    def finish(self) -> None:
        """Refuse what was not taken."""
        left = [key for key in self.values if str(key).strip('"') not in _WITHOUT_MEANING]
        left.remove(TARGET) if TARGET in left else None
        if left:
            raise ConfigError(
                f"{self.where(left[0])} is not a key that can be translated. Leave it out, and set "
                "what it means by hand."
            )

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key
