"""Measure everything the scenes world promises."""

from __future__ import annotations

from dataclasses import replace

from mllm_npu.data.worlds.scene_pictures import parse_scene
from mllm_npu.evaluate.figure import Figure, Target, mean_figure
from mllm_npu.evaluate.judge_scenes import SceneJudge
from mllm_npu.evaluate.knob import Trial, choose_trial
from mllm_npu.evaluate.page import Choice, Gallery, Tile, TileRow, make_tile
from mllm_npu.evaluate.runner import TaskResult, figure_of, run_tasks
from mllm_npu.evaluate.suite_result import SuiteResult
from mllm_npu.evaluate.tasks.scenes_captions import SceneCaptions
from mllm_npu.evaluate.tasks.scenes_draw import SceneDrawing
from mllm_npu.evaluate.tasks.scenes_edit import SceneEdits
from mllm_npu.evaluate.tasks.scenes_questions import SceneQuestions
from mllm_npu.evaluate.world_rows import meta_of, read_rows
from mllm_npu.evaluate.world_suite import WorldSuite
from mllm_npu.processing.raster import to_pillow

GUIDANCES = (1.0, 1.5, 2.0, 3.0)
"""Tried on the validation split."""

TARGETS = {
    "scenes_qa": Target(limit=0.96, side="least"),
    "scenes_caption_exact": Target(limit=0.97, side="least"),
    "scenes_draw_strict": Target(limit=0.95, side="least"),
    "train_seconds": Target(limit=600, side="most"),
}

LEAD = (
    "One small model describes scenes of coloured shapes, answers questions, draws and edits them. "
    "Every figure is measured on compositions that training never saw."
)
_ROW = 8
_NUM_SHOWN = 40


class ScenesSuite(WorldSuite):
    """The figures of the scenes world."""

    def __post_init__(self) -> None:
        self._test = read_rows(self.world, "caption", "test")
        self.judge = SceneJudge(picture_size=self._test[0].picture().width)

    def measure(self) -> SuiteResult:
        """See WorldSuite."""
        drawing = self._choose_drawing()
        best = replace(self.options, guidance=drawing.chosen.guidance)
        results = run_tasks(
            [
                SceneQuestions(world=self.world, options=self.options),
                SceneCaptions(world=self.world, options=self.options),
                SceneDrawing(world=self.world, split="test", judge=self.judge, options=best),
                SceneEdits(world=self.world, judge=self.judge, options=best),
            ],
            self.engine,
            limit=self.limit,
            meter=self.meter,
        )
        drawn = results[2]
        return SuiteResult(
            title="mllm-npu on scenes of coloured shapes",
            lead=LEAD,
            figures=[*(figure_of(result, TARGETS) for result in results), self._judge_figure()],
            results=results,
            choices=[drawing],
            galleries=[_drawn_gallery(drawn)],
        )

    def _choose_drawing(self) -> Choice:
        """Most pictures wholly right on the validation split, then most quarters."""
        tasks = [
            SceneDrawing(
                world=self.world,
                split="valid",
                judge=self.judge,
                options=replace(self.options, guidance=guidance),
            )
            for guidance in GUIDANCES
        ]
        results = run_tasks(tasks, self.engine, limit=self.limit, meter=self.meter)
        trials = []
        for guidance, task, result in zip(GUIDANCES, tasks, results, strict=True):
            shares = [task.share_of_quarters(r.example, r.reply) for r in result.records]
            trials.append(
                Trial(
                    guidance=guidance,
                    image_steps=self.options.image_steps,
                    judged=result.value,
                    num=len(shares),
                    tie_break=sum(shares) / len(shares),
                )
            )
        return Choice(
            title="Drawing", tie_break="quarters right", trials=trials, chosen=choose_trial(trials)
        )

    def _judge_figure(self) -> Figure:
        scores = [
            float(
                self.judge.is_right(to_pillow(row.picture()), parse_scene(meta_of(row)["objects"]))
            )
            for row in self._test
        ]
        return mean_figure(
            name="scenes_judge_accuracy",
            title="The judge's own accuracy on rendered unseen compositions",
            values=scores,
            citation="Nearest rendered template in each quarter.",
        )


def _drawn_gallery(drawn: TaskResult) -> Gallery:
    """What was asked for beside what was drawn, the first ones."""
    records = [record for record in drawn.records if record.reply.pictures][:_NUM_SHOWN]
    wanted: list[Tile] = []
    made: list[Tile] = []
    for record in records:
        if record.example.truth is not None:
            wanted.append(make_tile(record.example.truth, record.example.answer))
            caption = f"asked for {record.example.answer}; judged {record.understood}"
            made.append(make_tile(record.reply.pictures[0], caption, is_wrong=record.score < 1))
    return Gallery(
        title="Drawn scenes beside rendered ones",
        note=(
            "Compositions that never occur in training; the first ones, not picked. Sizes and "
            "exact places are free. A red frame means that a quarter is not as it was asked for."
        ),
        real_label="rendered from the same description",
        drawn_label="drawn by the model",
        rows=[
            TileRow(label="", real=wanted[start : start + _ROW], drawn=made[start : start + _ROW])
            for start in range(0, len(made), _ROW)
        ],
    )
