"""Compose a model part by part: with values of its own, or without memory where values are to come.

This is how a model larger than a process comes to be: its parts are built without memory, spread
over ranks, and then each rank reads its own rows of the values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mllm_npu.arguments import TARGET
from mllm_npu.config import Config, plain
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.models.weight_values import split_part
from mllm_npu.models.weights import load_weights

Build = Callable[..., Any]
"""Builds one ``_target_`` node with parts that are objects already."""
Say = Callable[[str], None]
_PATH = "path"
"""The setting by which a part names weights of its own."""


class StartingValues:
    """Where the values of a model come from, and which of its parts start at random.

    Args:
        config: with ``models`` and ``lora``.
        weights: files or folders that hold the values of the model between them. Without any, parts
            that name a folder of their own take its values, and the others start at random.
        fresh: parts by name that start at random where the weights lack them.

    Raises:
        ConfigError: a part that is to start at random is not there.
    """

    def __init__(
        self, config: Config, *, weights: Sequence[str | Path] = (), fresh: Sequence[str] = ()
    ) -> None:
        self.node: dict[str, Any] = plain(config.models)
        self.lora_alpha = None if config.lora is None else config.lora.get("alpha")
        self.fresh = tuple(fresh)
        self.whole = bool(weights)
        self.sources = [*weights] if weights else [*_own_paths(self.node)]
        for name in self.fresh if self.whole else ():
            _require_part(self.node, name)

    def compose(self, build: Build) -> nn.Module:
        """The model; parts whose values are to come have no memory."""
        return self._compose(self.node, "", build)

    def fill(
        self,
        model: nn.Module,
        *,
        say: Say = lambda _: None,
        device: torch.device | None = None,
        given: Collection[str] = (),
    ) -> None:
        """Read the values that were to come, each rank its own rows.

        Args:
            model: from ``compose``, perhaps sharded since.
            say: is told in one line what became of the weights.
            device: where rows of sharded parameters go.
            given: names, without adapters, whose values come from elsewhere, such as a checkpoint.

        Raises:
            WeightsError: the weights do not fit.
        """
        if not self.sources:
            return
        strict = self.whole and not self.fresh and not given
        hollow = {
            name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.is_meta
        }
        report = load_weights(
            model,
            self.sources,
            strict=strict,
            lora_alpha=self.lora_alpha,
            device=device,
            grow=not self.whole,
        )
        lacking = [
            name
            for name in report.missing
            if not self._is_fresh(name) and name not in given and (self.whole or name in hollow)
        ]
        # The folder of a part may hold more than the part: a pooling head, a tower for texts.
        if lacking or (self.whole and report.unexpected):
            raise WeightsError(
                f"The weights do not fit, and only {', '.join(self.fresh) or 'no part'} may start "
                f"fresh: {report}. Add parts to fresh=[...], or give their weights."
            )
        say(f"weights: {report}")

    def _compose(self, node: Mapping[str, Any], where: str, build: Build) -> nn.Module:
        parts = {
            key: self._compose(child, f"{where}{key}.", build)
            for key, child in node.items()
            if isinstance(child, Mapping) and TARGET in child
        }
        rest = {key: value for key, value in node.items() if key not in parts}
        named = rest.get(_PATH) is not None
        is_hollow = not self._is_fresh(where) if self.whole else named
        with torch.device("meta") if is_hollow else nullcontext():
            return build(rest, **parts)

    def _is_fresh(self, name: str) -> bool:
        return any(name.startswith(f"{part}.") for part in self.fresh)


def first_weights(config: Config) -> list[Path]:
    """Where a run starts from; empty where its weights are those of its parts, or random.

    Raises:
        ConfigError: a file or folder that is not there.
    """
    named = config.models.get("pretrained_model_name_path") or config.initialise_from or ()
    paths = [Path(path) for path in ([named] if isinstance(named, str) else named)]
    for path in paths:
        if not split_part(path)[0].exists():
            raise ConfigError(
                f"initialise_from={path} was asked for and is not there. Train the stage before "
                "this one (an experiment of stages trains all), give weights that are there, or "
                "set initialise_from=null."
            )
    return paths


def _own_paths(node: Mapping[str, Any]) -> list[str]:
    """Folders and files that parts below a node name as their own weights."""
    found = [node[_PATH]] if TARGET in node and isinstance(node.get(_PATH), str) else []
    for child in node.values():
        if isinstance(child, Mapping):
            found += _own_paths(child)
    return found


def _require_part(node: Mapping[str, Any], name: str) -> None:
    described: Any = node
    for part in name.split("."):
        described = described.get(part) if isinstance(described, Mapping) else None
    if not isinstance(described, Mapping) or TARGET not in described:
        raise ConfigError(
            f"fresh={name} was asked for; models has no such part with a {TARGET}. Name parts, "
            "such as projector or image_decoder.resampler."
        )
