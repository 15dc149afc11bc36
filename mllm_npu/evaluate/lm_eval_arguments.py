"""What ``lm_eval --model_args`` says about a model of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from lm_eval.config.evaluate_config import EvaluatorConfig

from mllm_npu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """One model and how it runs.

    Args:
        run: folder of a run, a stage or a model.
        device: where it runs.
        batch_size: requests that advance together; None leaves it to the engine.
        max_length: longest prompt with its reply; None: what the model takes.
        seed: of replies that are sampled.
    """

    run: Path
    device: str = "auto"
    batch_size: int | None = None
    max_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("batch_size", self.batch_size is None or self.batch_size >= 1, "a number from 1"),
            ("max_length", self.max_length is None or self.max_length >= 2, "a number from 2"),
            ("seed", self.seed >= 0, "a number from 0"),
        )
        for name, fits, wanted in checks:
            if not fits:
                raise ConfigError(f"{name}={getattr(self, name)!r} was asked for; give {wanted}.")

    @classmethod
    def read(cls, model_args: Mapping[str, Any], options: Mapping[str, Any]) -> Self:
        """What was asked for.

        Args:
            model_args: of ``--model_args``; they win. ``pretrained``, after which lm-eval names the
                folder of its results, is another word for ``run``.
            options: ``batch_size``, ``max_batch_size`` and ``device`` of lm-eval's own command.
                Those it has by itself (a batch of one, the first GPU) ask for nothing.

        Raises:
            ConfigError: no run is named, or something that is not known.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(model_args) - {*known, "pretrained"})
        runs = [str(model_args[name]) for name in ("run", "pretrained") if model_args.get(name)]
        if unknown or len(runs) != 1:
            asked = ", ".join(unknown) or ("run and pretrained" if runs else "no run")
            raise ConfigError(
                f"--model_args names {asked}; known are {', '.join(known)}. For example: "
                "--model_args run=runs/digits"
            )
        usual = asdict(EvaluatorConfig())
        given = {
            name: value
            for name, value in options.items()
            if value is not None and str(value) != str(usual.get(name))
        }
        size = model_args.get("batch_size", given.get("batch_size"))
        if str(size).startswith("auto"):
            size = given.get("max_batch_size")
        return cls(
            run=Path(runs[0]),
            device=str(model_args.get("device", given.get("device", "auto"))),
            batch_size=_number("batch_size", size),
            max_length=_number("max_length", model_args.get("max_length")),
            seed=_number("seed", model_args.get("seed")) or 0,
        )


def _number(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except ValueError as error:
        raise ConfigError(f"{name}={value!r} was asked for; give a whole number.") from error
