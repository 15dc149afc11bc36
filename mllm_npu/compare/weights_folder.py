"""Find what a folder of a run means as a side: the stage it is of, and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mllm_npu.config import read_config
from mllm_npu.distributed.checkpoint_files import INDEX_FILE
from mllm_npu.errors import ConfigError
from mllm_npu.export import export_stage
from mllm_npu.model_folder import MODEL_FILE

STAGE_FILE = "config.yaml"
_STEP = "step-"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFolder:
    """A model and where it comes from.

    Args:
        stage: folder of the stage that has trained it; None where that is not known.
        model: folder of the model; None where only a checkpoint is there.
        step: of that checkpoint; None for the newest.
    """

    stage: Path | None
    model: Path | None
    step: int | None = None

    def weights(self, scratch: Path) -> tuple[Path, ...]:
        """Files and folders that hold the values; a checkpoint is written out as a model folder.

        Args:
            scratch: a folder for that.
        """
        folder = self.model
        if folder is None:
            assert self.stage is not None
            folder = scratch / f"{len(list(scratch.iterdir()))}-model"
            export_stage(self.stage, folder, step=self.step)
        named = read_config(folder / MODEL_FILE, "model").weights
        return tuple(folder / path for path in named) if named else (folder,)


def find_weights(folder: Path) -> WeightsFolder:
    """What a run, a stage, a model folder or a folder of one checkpoint means.

    Of a run the stage counts that was written last.

    Raises:
        ConfigError: it is none of these, or has nothing to start from.
    """
    if (folder / INDEX_FILE).is_file() and folder.name.startswith(_STEP):
        step = folder.name.removeprefix(_STEP)
        if step.isdigit() and (folder.parent.parent / STAGE_FILE).is_file():
            return WeightsFolder(stage=folder.parent.parent, model=None, step=int(step))
    if (folder / MODEL_FILE).is_file():
        stage = folder.absolute().parent
        return WeightsFolder(stage=stage if (stage / STAGE_FILE).is_file() else None, model=folder)
    if (folder / STAGE_FILE).is_file():
        return _of_stage(folder)
    stages = sorted(folder.glob(f"*/{STAGE_FILE}"), key=lambda path: path.stat().st_mtime)
    for file in reversed(stages):
        if _has_weights(file.parent):
            return _of_stage(file.parent)
    raise ConfigError(
        f"{folder} was asked for as a side, and holds no run, stage, model or checkpoint "
        f"({STAGE_FILE} or {MODEL_FILE} is not in it). Give the folder of one."
    )


def _of_stage(stage: Path) -> WeightsFolder:
    if not _has_weights(stage):
        raise ConfigError(
            f"{stage} was asked for as a side, and has neither a model nor a checkpoint yet. Train "
            "it until it has written one."
        )
    model = stage / "model"
    return WeightsFolder(stage=stage, model=model if (model / MODEL_FILE).is_file() else None)


def _has_weights(stage: Path) -> bool:
    return (stage / "model" / MODEL_FILE).is_file() or (stage / "checkpoints" / "latest").is_file()
