"""Draw from a file of prompts; fit to the prompt, what is shown, and distance to real pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.clip_score import CITATION as CLIP_CITATION
from mllm_npu.evaluate.clip_score import ClipScore
from mllm_npu.evaluate.diversity import spread_within_classes
from mllm_npu.evaluate.encoder_features import features_of
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.picture_distance import (
    Distance,
    RealPictures,
    check_numbers,
    distance_figures,
)
from mllm_npu.evaluate.picture_judge import NOTE, PictureJudge, judging_engine, read_verdict
from mllm_npu.evaluate.prompt import Frame
from mllm_npu.evaluate.prompt_checker import (
    NO_PICTURE,
    PromptChecker,
    control_figures,
    prompt_figure,
)
from mllm_npu.evaluate.prompt_file import by_prompt, draw_examples, read_prompts
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.interfaces import VisionEncoder

LAYOUT = """prompts.txt, a prompt a line; or prompts.jsonl, with lines such as
{"prompt": "two dogs", "id": "dogs", "seed": 7, "include": [{"class": "dog", "count": 2}]}
of which all but prompt may be left out"""

_SHOWN = "a picture"


class PromptDrawing(Task):
    """Several pictures of every prompt.

    The score of a reply is its CLIP score where a model for that is given; else whether its picture
    passes all checks, where every prompt has some; else whether there is a picture. One without a
    picture has score 0.

    Args:
        data: folder with ``prompts.txt`` or ``prompts.jsonl``, or such a file.
        engine: of the model that is measured.
        options: how pictures are made; its seed is that of the first one.
        pictures_per_prompt: each with its own noise.
        template: how a prompt is asked for; ``{prompt}`` stands for its words.
        frame: see `Frame`.
        force: the reply begins with the picture and ends after it.
        clip: folder of a CLIP or SigLIP model that says how well pictures fit their prompts.
        real: folder or zip of real pictures that the drawn ones are compared with.
        keep: safetensors file for the statistics of the real pictures, to compute them once.
        distances: from the real pictures, "fid" and "kid".
        encoder: whose features those are of; None takes the model's own, which is weak evidence
            about its own drawings.
        judge: folder of another run that answers the checks; None lets the model judge itself.
        questions: wordings of the checks, see `QUESTIONS`.

    Raises:
        ConfigError: a model, a template or a wording that cannot be used.
        DataError: there are no prompts or no real pictures, or too few of them for FID.
    """

    name = "draw_prompts"
    needs_drawing = True

    def __init__(
        self,
        *,
        data: Path,
        engine: Engine,
        options: GenerationOptions,
        pictures_per_prompt: int = 4,
        template: str = "{prompt}",
        frame: Frame = "chat",
        force: bool = True,
        clip: str | None = None,
        real: str | None = None,
        keep: str | None = None,
        distances: Sequence[Distance] = ("fid", "kid"),
        encoder: VisionEncoder | None = None,
        judge: str | None = None,
        questions: Mapping[str, str | None] | None = None,
    ) -> None:
        files = BenchmarkFiles(data, layout=LAYOUT)
        prompts = read_prompts(files, _find_prompts(files))
        self._examples = draw_examples(
            prompts,
            options=options,
            pictures_per_prompt=pictures_per_prompt,
            template=template,
            frame=frame,
            force=force,
        )
        self.distances = tuple(distances)
        self.features = features_of(engine, encoder)
        self.real = None if real is None else RealPictures(real, self.features, keep=keep)
        if self.real is not None:
            check_numbers(
                self.distances,
                num_real=self.real.num,
                num_drawn=len(self._examples),
                width=self.features.width,
            )
        self.clip = None if clip is None else ClipScore(path=clip, device=engine.device)
        self._clip_scores: dict[str, float] = {}
        self.checker: PromptChecker | None = None
        if all(prompt.checks is not None for prompt in prompts):
            asked = PictureJudge(engine=judging_engine(engine, judge), questions=questions)
            self.checker = PromptChecker(prompts=prompts, judge=asked)
        self.title, self.citation = self._describe()

    def examples(self) -> Sequence[Example]:
        """Every prompt several times, each with its own noise."""
        return self._examples

    def look(self, replies: Sequence[tuple[Example, Reply]]) -> None:
        """Ask about all pictures, and score them by CLIP."""
        if self.checker is not None:
            self.checker.look(replies)
        if self.clip is not None:
            drawn = [(example, reply) for example, reply in replies if reply.pictures]
            scores = self.clip.score(
                [e.answer for e, _ in drawn], [r.pictures[0] for _, r in drawn]
            )
            names = [example.name for example, _ in drawn]
            self._clip_scores.update(zip(names, scores, strict=True))

    def score(self, example: Example, reply: Reply) -> float:
        """CLIP score (0..100); or 1 for a picture that passes its checks; or 1 for a picture."""
        if not reply.pictures:
            return 0.0
        if self.clip is not None:
            if example.name not in self._clip_scores:
                self.look([(example, reply)])
            return self._clip_scores[example.name]
        return float(self.checker is None or self.checker.verdict(example, reply).is_right)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """What the judge said where there are checks, else whether there is a picture."""
        words = _SHOWN if reply.pictures else NO_PICTURE
        if self.checker is not None:
            verdict = self.checker.verdict(example, reply)
            if not verdict.is_read:
                return None
            words = verdict.words
        return words if self.clip is None else f"{words}; CLIP {self.score(example, reply):.1f}"

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """The score, then the share of replies with a picture, checks, spread and distances."""
        main = prompt_figure(
            name=self.name,
            title=self.title,
            records=records,
            values={record.example.name: record.score for record in records},
            citation=self.citation,
            num_unread=None if self.checker is None else count_unread(records),
        )
        drawn = prompt_figure(
            name=f"{self.name}/drawn",
            title="Replies with a picture",
            records=records,
            values={r.example.name: float(bool(r.reply.pictures)) for r in records},
            level=1,
        )
        return [
            main,
            drawn,
            *self._check_figures(records),
            *_spread_figures(records, self.name),
            *self._distance_figures(records),
        ]

    def _describe(self) -> tuple[str, str]:
        """Title and citation of the main figure, by what it is."""
        if self.clip is not None:
            return "CLIP score of drawn pictures and their prompts", CLIP_CITATION
        if self.checker is not None:
            return "Drawn pictures that show what was asked for", NOTE
        return "Prompts that were answered by a picture", "Prompts of a file."

    def _check_figures(self, records: Sequence[Record]) -> list[Figure]:
        if self.checker is None:
            return []
        passed = {r.example.name: float(read_verdict(r.understood)[0]) for r in records}
        figure = prompt_figure(
            name=f"{self.name}/checks",
            title="Drawn pictures that show what was asked for",
            records=records,
            values=passed,
            citation=NOTE,
            num_unread=count_unread(records),
            level=1,
        )
        own = [] if self.clip is None else [figure]
        return [*own, *control_figures(records, self.name)]

    def _distance_figures(self, records: Sequence[Record]) -> list[Figure]:
        if self.real is None:
            return []
        return distance_figures(
            self.real.statistics(),
            (picture for record in records for picture in record.reply.pictures[:1]),
            name=self.name,
            distances=self.distances,
            features=self.features,
        )


def _find_prompts(files: BenchmarkFiles) -> str:
    """The one file of prompts."""
    kinds = ("prompts.jsonl", "prompts.txt") if files.path.is_dir() else ("*.jsonl", "*.txt")
    found = [name for kind in kinds if files.has(kind) for name in files.find(kind)]
    if len(found) != 1:
        raise files.lacking(f"there are {len(found)} files of prompts")
    return found[0]


def _spread_figures(records: Sequence[Record], name: str) -> list[Figure]:
    """How much the pictures of one prompt differ: none do where a model knows one picture only."""
    groups = enumerate(by_prompt(records).values())
    shown = [(r.reply.pictures[0], n) for n, own in groups for r in own if r.reply.pictures]
    if len({picture.size for picture, _ in shown}) != 1:
        return []
    value = spread_within_classes([p for p, _ in shown], [number for _, number in shown])
    if value is None:
        return []
    return [
        Figure(
            name=f"{name}/spread",
            title="Standard deviation among the pictures of a prompt, pixels in [-1, 1]",
            value=round(value, 5),
            num=len(shown),
            level=1,
        )
    ]
