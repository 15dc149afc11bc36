"""Measure everything the digits world promises."""

from __future__ import annotations

from dataclasses import replace

from mllm_npu.evaluate import digits_page
from mllm_npu.evaluate.diversity import mean_squared_error, spread_within_classes
from mllm_npu.evaluate.figure import Figure, Target, mean_figure
from mllm_npu.evaluate.knob import Trial, choose_trial
from mllm_npu.evaluate.page import Choice
from mllm_npu.evaluate.real_digits import Redrawn, Scans, read_scans
from mllm_npu.evaluate.runner import TaskResult, figure_of, run_tasks
from mllm_npu.evaluate.suite_result import SuiteResult
from mllm_npu.evaluate.tasks.digits_draw import DigitDrawing
from mllm_npu.evaluate.tasks.digits_read import DigitReading
from mllm_npu.evaluate.tasks.digits_strips import DigitStrips
from mllm_npu.evaluate.tasks.digits_sum import DigitSums
from mllm_npu.evaluate.world_suite import WorldSuite

GUIDANCES = (1.0, 1.5, 2.0, 3.0)
"""Tried on the validation split, for drawing and for reconstruction apart."""

TARGETS = {
    "comprehension_accuracy": Target(limit=0.98, side="least"),
    "reconstruction_judged": Target(limit=0.98, side="least"),
    "reconstruction_mse": Target(limit=0.02, side="most"),
    "draw_judged": Target(limit=0.98, side="least"),
    "draw_diversity": Target(limit=0.5, side="least"),
    "ocr_exact_match": Target(limit=0.85, side="least"),
    "sum_accuracy": Target(limit=0.85, side="least"),
    "train_seconds": Target(limit=420, side="most"),
    "peak_rss_gib": Target(limit=3, side="most"),
}

LEAD = (
    "One small model reads digits, answers in words and draws. Every figure is measured on scans "
    "that training never saw; single digits are asked for in wordings it never saw either."
)


class DigitsSuite(WorldSuite):
    """The figures of the digits world."""

    def __post_init__(self) -> None:
        self.scans, self.judge = read_scans(self.world)

    def measure(self) -> SuiteResult:
        """See WorldSuite."""
        drawing, redrawing = self._choose_drawing(), self._choose_redrawing()
        best = replace(self.options, guidance=drawing.chosen.guidance)
        results = run_tasks(
            [
                DigitReading(world=self.world, options=self.options),
                DigitDrawing(world=self.world, split="test", judge=self.judge, options=best),
                DigitStrips(world=self.world, options=self.options),
                DigitSums(world=self.world, options=self.options),
            ],
            self.engine,
            limit=self.limit,
            meter=self.meter,
        )
        reading, drawn, strips, sums = results
        redrawn = self._redraw(self.scans["test"], redrawing.chosen.guidance)
        return SuiteResult(
            title="mllm-npu on real handwritten digits",
            lead=LEAD,
            figures=[
                figure_of(reading, TARGETS),
                *_redrawn_figures(redrawn),
                figure_of(drawn, TARGETS),
                self._judge_figure(),
                *self._diversity_figures(drawn),
                figure_of(strips, TARGETS),
                figure_of(sums, TARGETS),
            ],
            results=results,
            choices=[drawing, redrawing],
            galleries=[
                digits_page.drawn_gallery(self.scans["train"], drawn),
                digits_page.redrawn_gallery(redrawn),
            ],
            confusions=[
                digits_page.reading_confusion(reading),
                digits_page.drawing_confusion(drawn),
            ],
        )

    def _choose_drawing(self) -> Choice:
        """Most digits judged right on the validation wordings, then most diverse."""
        tasks = [
            DigitDrawing(
                world=self.world,
                split="valid",
                judge=self.judge,
                options=replace(self.options, guidance=guidance),
            )
            for guidance in GUIDANCES
        ]
        results = run_tasks(tasks, self.engine, limit=self.limit, meter=self.meter)
        trials = [
            Trial(
                guidance=guidance,
                image_steps=self.options.image_steps,
                judged=result.value,
                num=len(result.records),
                tie_break=self._diversity(result) or 0.0,
            )
            for guidance, result in zip(GUIDANCES, results, strict=True)
        ]
        return Choice(
            title="Drawing", tie_break="diversity", trials=trials, chosen=choose_trial(trials)
        )

    def _choose_redrawing(self) -> Choice:
        """Most validation scans judged right, then closest."""
        trials = []
        for guidance in GUIDANCES:
            redrawn = self._redraw(self.scans["valid"], guidance)
            num = len(redrawn.pictures)
            trials.append(
                Trial(
                    guidance=guidance,
                    image_steps=self.options.image_steps,
                    judged=sum(redrawn.scores) / num,
                    num=num,
                    tie_break=-sum(redrawn.errors) / num,
                )
            )
        return Choice(
            title="Reconstruction",
            tie_break="− squared error",
            trials=trials,
            chosen=choose_trial(trials),
        )

    def _redraw(self, scans: Scans, guidance: float) -> Redrawn:
        scans = scans.first(self.limit)
        self.meter.expect(len(scans.pictures))
        pictures = self.engine.redraw(scans.pictures, replace(self.options, guidance=guidance))
        self.meter.advance(len(scans.pictures))
        size = pictures[0].size
        return Redrawn(
            scans=scans,
            pictures=pictures,
            seen=self.judge.judge(pictures),
            errors=mean_squared_error(pictures, [p.resize(size) for p in scans.pictures]),
        )

    def _diversity(self, drawn: TaskResult) -> float | None:
        """Spread of the drawings of a digit over that of its real training scans."""
        records = [record for record in drawn.records if record.reply.pictures]
        pictures = [record.reply.pictures[0] for record in records]
        if not pictures:
            return None
        real, size = self.scans["train"], pictures[0].size
        spread = spread_within_classes(pictures, [int(r.example.answer) for r in records])
        real_spread = spread_within_classes([p.resize(size) for p in real.pictures], real.digits)
        return spread / real_spread if spread is not None and real_spread else None

    def _diversity_figures(self, drawn: TaskResult) -> list[Figure]:
        value = self._diversity(drawn)
        if value is None:
            return []
        figure = Figure(
            name="draw_diversity",
            title="Spread of drawings within a digit over that of real scans, same guidance",
            value=round(value, 5),
            target=TARGETS["draw_diversity"],
            citation="Mean over digits and pixels of the standard deviation within a digit.",
        )
        return [figure]

    def _judge_figure(self) -> Figure:
        scans = self.scans["test"]
        seen = self.judge.judge(scans.pictures)
        return mean_figure(
            name="judge_accuracy",
            title="The judge's own accuracy on held-out scans",
            values=[float(a == b) for a, b in zip(seen, scans.digits, strict=True)],
            citation="SVM (gamma 0.001, C 10) trained on the real training scans only.",
        )


def _redrawn_figures(redrawn: Redrawn) -> list[Figure]:
    return [
        mean_figure(
            name="reconstruction_judged",
            title="Held-out scans through encoder and decoder, judged right",
            values=redrawn.scores,
            targets=TARGETS,
            citation="This project's digits world; same judge as for drawings.",
        ),
        mean_figure(
            name="reconstruction_mse",
            title="Squared error of those reconstructions, pixels in [-1, 1]",
            values=redrawn.errors,
            targets=TARGETS,
        ),
    ]
