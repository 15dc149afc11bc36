"""What trackers share that report to a service: its package, and how it knows the run again."""

from __future__ import annotations

import importlib
import uuid
from pathlib import Path
from typing import Any

from mllm_npu.config import parse_yaml
from mllm_npu.errors import ConfigError

_ID_LENGTH = 21
"""Letters and digits of an id that all services take."""


def import_package(name: str) -> Any:
    """The package of a service, which is also the name of the extra that brings it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"The tracker {name} was asked for, and its package cannot be imported ({error}). Run "
            f"pip install 'mllm-npu[{name}]', or leave it out, as in tracker=[jsonl,tensorboard]."
        ) from error


def keep_run_id(file: Path, step: int) -> str:
    """The id by which a service knows a run: that in the file where it goes on, else a new one.

    Args:
        file: in the folder of the run.
        step: updates done; a run that begins anew is a new run of the service.
    """
    if step and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    run_id = uuid.uuid4().hex[:_ID_LENGTH]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(run_id + "\n", encoding="utf-8")
    return run_id


def read_settings(config: str) -> dict[str, Any]:
    """A configuration as the nested settings that a service lists and compares."""
    values = parse_yaml(config) if config else {}
    return values if isinstance(values, dict) else {"config": config}


def refuse_start(name: str, mode: str, error: Exception) -> ConfigError:
    """Say why a service does not let a run in, and how to go on without it."""
    reason = " ".join(str(error).split())
    return ConfigError(
        f"The tracker {name} was asked for with mode={mode}, and it cannot start: {reason} "
        f"Log in ({name} login), or set train.recorder.trackers.{name}.mode=offline and send the "
        f"run later ({name} sync)."
    )
