"""The configuration of each side: one for both, but for what is compared."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.compare.side import Side
from mllm_npu.compare.weights_folder import WeightsFolder, find_weights
from mllm_npu.config import (
    Config,
    check_config,
    load_config,
    parse_yaml,
    plain,
    read_config,
    read_stage,
)
from mllm_npu.errors import ConfigError
from mllm_npu.model_folder import MODEL_FILE
from mllm_npu.roots import TrainRoot

_ONE_PROCESS: Mapping[str, Any] = {
    "kind": "single",
    "replicas": 1,
    "sequence_size": 1,
    "cpu_offload": False,
    "compile_backend": None,
}
_CACHES = ("feature_cache", "latent_cache")
"""Of an objective: what they keep would hide a module from the second look at it."""
_COUNTED = ("models", "lora", "objective", "seed")
"""Settings that must be those of a record."""
_PLACES = ("path", "pretrained_model_name_path")
"""Settings of parts that name a place of one machine."""


class SideConfigs:
    """Says what each side is built from.

    Args:
        sides: all that are compared.
        overrides: Hydra overrides for both; with an ``experiment`` among them they say what is run,
            else the run of the first folder does.
        scratch: a folder for what checkpoints are written out to.

    Raises:
        ConfigError: the configuration cannot be composed, or a folder holds no run.
    """

    def __init__(self, sides: Sequence[Side], overrides: Sequence[str], *, scratch: Path) -> None:
        self.overrides = list(overrides)
        self.scratch = scratch
        self._folders = {
            side.word: find_weights(side.path) for side in sides if side.kind == "folder"
        }
        self._first = next(iter(self._folders.values()), None)
        names_run = any(text.lstrip("+").startswith("experiment=") for text in overrides)
        self._composed: dict[tuple[str, ...], Config] = {}
        self._is_composed = names_run or self._first is None or self._first.stage is None

    def of(self, side: Side) -> Config:
        """The configuration of a side, on one process and with caches off.

        Raises:
            ConfigError: a setting that is none, or an experiment of several stages.
        """
        config = self._start(side)
        folder = self._folders.get(side.word, None if self._is_composed else self._first)
        if folder is not None:
            self._take_weights(config, folder)
        if config.stages:
            raise ConfigError(
                f"{config.name} is made of the stages {', '.join(config.stages)}, and each is a "
                f"run of its own. Give one of them, such as experiment={config.stages[0]}."
            )
        if side.kind == "device":
            config.device = side.word
        for node, values in (
            (config.parallel, _ONE_PROCESS),
            (config.objective, dict.fromkeys(_CACHES)),
            (config.dataset, {"quarantine": None}),
        ):
            for key in values:
                if key in node:
                    node[key] = values[key]
        return config

    def _start(self, side: Side) -> Config:
        if self._is_composed:
            known = self._composed.get(side.settings)
            if known is None:
                known = load_config("training", [*self.overrides, *side.settings])
                self._composed[side.settings] = known
            return copy.deepcopy(known)
        assert self._first is not None
        assert self._first.stage is not None
        config = read_stage(self._first.stage / "config.yaml")
        for text in (*self.overrides, *side.settings):
            _set(config, text)
        check_config(config, TrainRoot)
        return config

    def _take_weights(self, config: Config, folder: WeightsFolder) -> None:
        if folder.stage is None and folder.model is not None:
            # Nothing says how it was trained, so the run is the one of the overrides.
            described = read_config(folder.model / MODEL_FILE, "model")
            config.models = described.models
            config.processor = described.processor
            config.tokenizer.path = str(folder.model / described.tokenizer.path)
        if "pretrained_model_name_path" in config.models:
            config.models.pretrained_model_name_path = None
        config.initialise_from = [str(path) for path in folder.weights(self.scratch)]
        config.fresh = []


def counted_settings(config: Config) -> dict[str, Any]:
    """What two sides that are compared through a record must have in common; plain values."""
    values = plain(config)
    return {key: _without_places(values[key]) for key in _COUNTED}


def differing_settings(a: Any, b: Any, where: str = "") -> list[str]:
    """Settings that differ, as ``name: one, other``, in order."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [
            told
            for key in keys
            for told in differing_settings(
                a.get(key), b.get(key), f"{where}.{key}" if where else str(key)
            )
        ]
    return [] if a == b else [f"{where}: {a}, {b}"]


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(v) for key, v in value.items() if key not in _PLACES}
    return value


def _set(config: Config, text: str) -> None:
    """Change one setting of a configuration that is composed already."""
    name, mark, value = text.partition("=")
    *rooms, last = name.lstrip("+").split(".")
    node = config
    for room in rooms:
        node = node.get(room) if isinstance(node, Config) else None
    if not mark or not isinstance(node, Config):
        raise ConfigError(
            f"{text!r} was asked for beside the folder of a run, whose configuration is composed "
            "already. Give settings such as device=..., or an experiment=... for another run."
        )
    node[last] = parse_yaml(f"value: {value}")["value"]
