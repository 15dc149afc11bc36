"""Yes or no: questions about pictures in a file of one's own, `rows.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mllm_npu.errors import DataError
from mllm_npu.evaluate.prompt import put_question
from mllm_npu.evaluate.task import Example, Task
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_files import open_pictures


class YesOrNo(Task):
    """Share of questions answered with the right word.

    Args:
        data: folder with ``rows.jsonl`` (picture, question, answer) and the pictures.
        options: how replies are made.
    """

    name = "yes_or_no"
    title = "yes or no: right answers"
    citation = "A file of one's own."

    def __init__(self, *, data: str | Path, options: GenerationOptions) -> None:
        self.data, self.options = Path(data), options

    def examples(self) -> Sequence[Example]:
        """Every line of the file."""
        file = self.data / "rows.jsonl"
        if not file.is_file():
            raise DataError(f"{file} was asked for and is not there. Write it, a JSON a line.")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [
            Example(
                name=str(number),
                conversation=put_question(
                    [*open_pictures([self.data / row["picture"]]), row["question"]], frame="chat"
                ),
                answer=row["answer"],
                options=self.options,
            )
            for number, row in enumerate(rows)
        ]

    def score(self, example: Example, reply: Reply) -> float:
        """1 where the first word is the right one."""
        return float(self.explain(example, reply) == example.answer)

    def explain(self, example: Example, reply: Reply) -> str | None:
        """The word, yes or no; None of a reply that begins otherwise."""
        first = reply.text.lower().replace(",", " ").replace(".", " ").split()[:1]
        return first[0] if first in (["yes"], ["no"]) else None
