"""Run the stages of an experiment one after the other; each starts where the last one ended."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.build import build_trainer
from mllm_npu.config import Config, load_config, parse_yaml, to_yaml, write_config
from mllm_npu.device.memory import peak_rss_gib
from mllm_npu.errors import ConfigError, DataError, MllmNpuError
from mllm_npu.export import export_stage
from mllm_npu.model_folder import save_model_folder

CONFIG_FILE = "config.yaml"
SUMMARY_FILE = "summary.json"
FREE_SETTINGS = (
    "parallel",
    "device",
    "threads",
    "resume",
    "preflight",
    "profile",
    "validation",
    "dataset.num_workers",
    "dataset.quarantine",
    "train.accumulate",
    "train.packs_per_step",
    "train.log_every",
    "train.checkpoint_every",
    "train.recorder",
    "train.checkpoints",
    "train.faults",
    "train.memory_fit",
    "train.profile",
    "train.throughput",
)
"""What does not change what is learnt, or may be chosen anew when a run goes on."""


class Stopwatch:
    """Sums wall and processor seconds of what is done around the loop; runs from the start."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.start()

    def start(self) -> None:
        """Go on counting."""
        self._begin = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Add what has passed since the start."""
        self.seconds += time.perf_counter() - self._begin[0]
        self.cpu_seconds += time.process_time() - self._begin[1]


def train_experiment(
    overrides: Sequence[str], *, fresh: bool = False, say: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Train every stage of an experiment that is not finished yet.

    A stage that is stopped ends the experiment: the next one would start from what is not there.

    Args:
        overrides: Hydra overrides; those beside ``experiment=`` hold for every stage.
        fresh: forget what the stage folders hold and begin again.
        say: is told in one line what happens.

    Returns:
        The folders of the stages that were reached, in order.

    Raises:
        ConfigError: a stage folder holds a run of another configuration, or something else.
    """
    config = load_config("training", overrides)
    others = [text for text in overrides if not text.lstrip("+").startswith("experiment=")]
    stages = [load_config("training", [f"experiment={name}", *others]) for name in config.stages]
    stages = stages or [config]
    folders = [Path(stage.run_dir) for stage in stages]
    if len(set(folders)) < len(folders):
        raise ConfigError(
            f"run_dir={folders[0]} was asked for, and {len(folders)} stages need a folder each. "
            "Set output_dir or name instead."
        )
    for stage, folder in zip(stages, folders, strict=True):
        _forget(folder) if fresh else _refuse_other_config(stage, folder)
    reached: list[Path] = []
    for stage in stages:
        reached.append(train_stage(stage, say=say))
        if not is_finished(reached[-1]):
            break
    return reached


def train_stage(config: Config, *, say: Callable[[str], None] = lambda _: None) -> Path:
    """Train one stage to its end, resume it, or leave it alone when it is finished.

    Several processes started by torchrun call it alike; the first one writes the files.

    Returns:
        The stage folder: config.yaml, metrics.jsonl, checkpoints/, model/, summary.json.
    """
    folder = Path(config.run_dir)
    _refuse_other_config(config, folder)
    if is_finished(folder):
        say(f"{folder} is trained already; --fresh begins again")
        return folder
    setup = Stopwatch()
    trainer = build_trainer(config, say=say)
    if trainer.mesh.is_main:
        write_config(config, folder / CONFIG_FILE)
    say(f"training {folder}")
    setup.stop()
    try:
        finished = trainer.run(resume=config.resume)
    except MllmNpuError:
        if trainer.mesh.is_main:
            _drop_untouched(folder)
        raise
    if not finished:
        say(f"stopped at step {trainer.step}; the same command goes on from there")
        return folder
    setup.start()
    if trainer.mesh.is_main:
        _save_model(trainer, config, folder)
    setup.stop()
    summary = {
        "seconds": round(trainer.seconds + setup.seconds, 1),
        "cpu_seconds": round(trainer.cpu_seconds + setup.cpu_seconds, 1),
        "peak_rss_gib": round(peak_rss_gib(), 3),
        "steps": trainer.step,
    }
    if trainer.mesh.is_main:
        write_json(folder / SUMMARY_FILE, summary)
    _wait_for(folder / SUMMARY_FILE)
    return folder


def _save_model(trainer: Any, config: Config, folder: Path) -> None:
    """Write the model folder of a stage that is trained to its end."""
    if trainer.placed.is_sharded:
        # No process holds all of it; the last checkpoint does.
        export_stage(folder, folder / "model", step=trainer.step)
    else:
        save_model_folder(trainer.export(), config, folder / "model")


def _wait_for(path: Path) -> None:
    """Wait until the first process has written a file; torchrun ends all when that one fails."""
    while not path.is_file():
        time.sleep(0.2)


def is_finished(folder: Path) -> bool:
    """Whether a stage folder holds a stage that was trained to its end."""
    return (folder / SUMMARY_FILE).is_file()


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name, then rename."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}. Make room on its disk.") from error


def _drop_untouched(folder: Path) -> None:
    """Delete a stage folder that holds its configuration and nothing else: no step was made."""
    if [path.name for path in folder.iterdir()] == [CONFIG_FILE]:
        shutil.rmtree(folder)


def _forget(folder: Path) -> None:
    """Delete a stage folder, but never a folder that is something else; all ranks may do so."""
    try:
        found = None if folder.is_file() else [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    if found is None or (found and CONFIG_FILE not in found):
        if not folder.exists():  # another rank has begun to delete it
            return
        raise ConfigError(
            f"--fresh was asked for, and {folder} holds no run ({CONFIG_FILE} is not in it), so it "
            "is not deleted. Give another run_dir, or empty it yourself."
        )
    doomed = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        # One rank moves it away at once, and the others find nothing.
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed)


def _refuse_other_config(config: Config, folder: Path) -> None:
    """Refuse to mix two runs; what never reached a checkpoint may be begun otherwise."""
    file = folder / CONFIG_FILE
    if not file.is_file() or not (is_finished(folder) or (folder / "checkpoints").exists()):
        return
    before, now = (_lines_that_count(text) for text in (file.read_text("utf-8"), to_yaml(config)))
    changed = [
        line
        for line in difflib.unified_diff(before, now, lineterm="", n=0)
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    if changed:
        told = [line[0] + line[1:].strip().rstrip(",").replace('"', "") for line in changed[:4]]
        raise ConfigError(
            f"{folder} holds a run of another configuration ({'; '.join(told)}). "
            "Give run_dir=... for a new folder, or --fresh to forget that run."
        )


def _lines_that_count(text: str) -> list[str]:
    """A configuration as lines, without what may change while a run goes on."""
    values = parse_yaml(text)
    for path in FREE_SETTINGS:
        *rooms, last = path.split(".")
        node: Any = values
        for room in rooms:
            node = node.get(room) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return json.dumps(values, indent=1, ensure_ascii=False).splitlines()
