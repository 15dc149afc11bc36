"""Measure a trained run on the world it was trained on, and write its report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mllm_npu.data.worlds.recipes import require_world
from mllm_npu.errors import DataError
from mllm_npu.evaluate.digits_suite import TARGETS as DIGITS_TARGETS
from mllm_npu.evaluate.digits_suite import DigitsSuite
from mllm_npu.evaluate.figure import Figure, Target
from mllm_npu.evaluate.knob import RULE
from mllm_npu.evaluate.page import Choice, Page, pick_examples
from mllm_npu.evaluate.report import make_report, world_facts, write_report
from mllm_npu.evaluate.runner import Meter, Progress
from mllm_npu.evaluate.scenes_suite import TARGETS as SCENES_TARGETS
from mllm_npu.evaluate.scenes_suite import ScenesSuite
from mllm_npu.evaluate.training_log import Stage, add_up, read_stages
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.options import GenerationOptions

SUITES: Mapping[str, tuple[type[DigitsSuite | ScenesSuite], Mapping[str, Target]]] = {
    "digits": (DigitsSuite, DIGITS_TARGETS),
    "scenes": (ScenesSuite, SCENES_TARGETS),
}

_TRAINING_TITLES = {
    "train_seconds": "Training, all stages, seconds",
    "train_cpu_seconds": "Training, all stages, processor seconds",
    "peak_rss_gib": "Most memory a stage held, GiB",
}


def evaluate_run(
    engine: Engine,
    *,
    world: Path,
    run: Path,
    options: GenerationOptions,
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a run on held-out data; writes report.json, report.html and records.jsonl into it.

    Args:
        engine: the trained model.
        world: folder of the data set made on this machine.
        run: folder of the run, whose stages left metrics and summaries.
        options: how replies are made; the guidance of pictures is chosen on the validation split.
        limit: examples per task, for a quick look; None takes all.
        progress: called with (done, total).

    Returns:
        The content of report.json; ``figures`` holds the numbers by name.

    Raises:
        DataError: if there is no such world, or it has no suite.
    """
    begin = time.perf_counter()
    name = require_world(world).name
    if name not in SUITES:
        raise DataError(f"World {name!r} was to be evaluated, there are {sorted(SUITES)}.")
    suite, targets = SUITES[name]
    result = suite(
        engine=engine, world=world, options=options, limit=limit, meter=Meter(progress)
    ).measure()
    stages = read_stages(run)
    figures = [*result.figures, *_training_figures(stages, targets)]
    report = make_report(
        figures=figures,
        device=engine.device,
        seconds=time.perf_counter() - begin,
        facts=world_facts(
            name,
            {choice.title.lower(): _plain_choice(choice) for choice in result.choices},
            stages,
        ),
    )
    page = Page(
        title=result.title,
        lead=result.lead,
        galleries=result.galleries,
        confusions=result.confusions,
        examples=[pick_examples(task_result) for task_result in result.results],
        choices=result.choices,
    )
    write_report(run, report, page, stages=stages, results=result.results)
    return report


def _training_figures(stages: list[Stage], targets: Mapping[str, Target]) -> list[Figure]:
    return [
        Figure(name=name, title=_TRAINING_TITLES[name], value=value, target=targets.get(name))
        for name, value in add_up(stages).items()
    ]


def _plain_choice(choice: Choice) -> dict[str, Any]:
    return {
        "rule": RULE,
        "tie_break": choice.tie_break,
        "tried": [asdict(trial) for trial in choice.trials],
        "chosen": asdict(choice.chosen),
    }
