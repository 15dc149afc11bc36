"""GenEval: are the objects of a prompt there, as many, in the colors and places it says?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.figure import Figure, mean_figure, statistic_figure
from mllm_npu.evaluate.picture_judge import NOTE, PictureJudge, judging_engine
from mllm_npu.evaluate.prompt import Frame
from mllm_npu.evaluate.prompt_checker import PromptChecker, control_figures, prompt_figure
from mllm_npu.evaluate.prompt_file import by_prompt, draw_examples, read_prompts
from mllm_npu.evaluate.task import Example, Record, Task, count_unread
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions

LAYOUT = """evaluation_metadata.jsonl, with lines such as
{"tag": "counting", "include": [{"class": "clock", "count": 2}],
 "exclude": [{"class": "clock", "count": 3}], "prompt": "a photo of two clocks"}"""

Tagged = tuple[str, tuple[float, ...]]
"""Tag of a prompt, and the scores of its pictures."""


class GenEval(Task):
    """Pictures that show all that their prompt says, by the answers of a model about them.

    The official evaluation finds objects with Mask2Former and colors with CLIP; here a multimodal
    model answers questions, by default the very one that drew. Values are no official ones. That a
    model agrees with its own pictures is weak evidence: give another run as ``judge``, and look at
    ``geneval/control``, which is below 1 for a judge that affirms what is not there.

    Args:
        data: folder with ``evaluation_metadata.jsonl``, or that file.
        engine: of the model that is measured.
        options: how pictures are made; its seed is that of the first one.
        pictures_per_prompt: each with its own noise.
        template: how a prompt is asked for; ``{prompt}`` stands for its words.
        frame: see `Frame`.
        force: the reply begins with the picture and ends after it.
        judge: folder of another run that answers the questions; None lets the model judge itself.
        questions: wordings, see `QUESTIONS`.

    Raises:
        ConfigError: a judge, a template or a wording that cannot be used.
        DataError: the file is not there or has another form.
    """

    name = "geneval"
    title = "GenEval prompts drawn right, judged by a model's answers, mean over kinds"
    citation = f"GenEval (Ghosh et al. 2023, arXiv:2310.11513), prompts and averages. {NOTE}"
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
        judge: str | None = None,
        questions: Mapping[str, str | None] | None = None,
    ) -> None:
        files = BenchmarkFiles(data, layout=LAYOUT)
        found = files.find("evaluation_metadata.jsonl" if files.path.is_dir() else "*.jsonl")
        self.prompts = read_prompts(files, found[0])
        bare = next((p for p in self.prompts if p.checks is None or not p.tag), None)
        if bare is not None:
            raise files.lacking(f"the prompt {bare.text!r} has no tag or no include")
        self._examples = draw_examples(
            self.prompts,
            options=options,
            pictures_per_prompt=pictures_per_prompt,
            template=template,
            frame=frame,
            force=force,
        )
        asked = PictureJudge(engine=judging_engine(engine, judge), questions=questions)
        self.checker = PromptChecker(prompts=self.prompts, judge=asked)

    def examples(self) -> Sequence[Example]:
        """Every prompt several times, each with its own noise."""
        return self._examples

    def look(self, replies: Sequence[tuple[Example, Reply]]) -> None:
        """Ask about all pictures."""
        self.checker.look(replies)

    def score(self, example: Example, reply: Reply) -> float:
        """1 if the first picture shows all that is asked for and nothing that is excluded."""
        return float(self.checker.verdict(example, reply).is_right)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """What the judge answered; None where an answer cannot be understood."""
        verdict = self.checker.verdict(example, reply)
        return verdict.words if verdict.is_read else None

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """Mean over the kinds of prompts, then each kind, all pictures alike, and all prompts."""
        prompts = by_prompt(records)
        units: list[Tagged] = [
            (own[0].example.groups[0], tuple(record.score for record in own))
            for own in prompts.values()
        ]
        overall = statistic_figure(
            name=self.name,
            title=self.title,
            units=units,
            statistic=mean_over_tags,
            num=len(records),
            citation=self.citation,
            num_unread=count_unread(records),
        )
        tags = dict.fromkeys(tag for tag, _ in units)
        any_right = mean_figure(
            name=f"{self.name}/prompts",
            title="Prompts with a picture that is right",
            values=[max(scores) for _, scores in units],
            level=1,
        )
        return [
            overall,
            *(self._mean(records, tag.replace("_", " "), tag) for tag in tags),
            self._mean(records, "All pictures alike", None),
            any_right,
            *control_figures(records, self.name),
        ]

    def submissions(self, records: Sequence[Record]) -> Mapping[str, str | Image.Image]:
        """The folders that the official evaluation takes: metadata and pictures of each prompt."""
        rows = {prompt.name: prompt.row for prompt in self.prompts}
        files: dict[str, str | Image.Image] = {}
        for number, (name, own) in enumerate(by_prompt(records).items()):
            folder = f"geneval/{number:05d}"
            files[f"{folder}/metadata.jsonl"] = json.dumps(rows[name]) + "\n"
            drawn = [record.reply.pictures[0] for record in own if record.reply.pictures]
            for place, picture in enumerate(drawn):
                files[f"{folder}/samples/{place:04d}.png"] = picture
        return files

    def _mean(self, records: Sequence[Record], title: str, tag: str | None) -> Figure:
        own = [record for record in records if tag in (None, record.example.groups[0])]
        return prompt_figure(
            name=f"{self.name}/{tag or 'pictures'}",
            title=title,
            records=own,
            values={record.example.name: record.score for record in own},
            num_unread=count_unread(own),
            level=1,
        )


def mean_over_tags(prompts: Sequence[Tagged]) -> float:
    """Mean over the tags of the share of right pictures of each, as the official summary has it."""
    by_tag: dict[str, list[float]] = {}
    for tag, scores in prompts:
        by_tag.setdefault(tag, []).extend(scores)
    return sum(sum(scores) / len(scores) for scores in by_tag.values()) / len(by_tag)
