"""Prompts to draw, from a file of text or JSON lines, and the examples that ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names
from mllm_npu.evaluate.picture_checks import Checks, read_checks
from mllm_npu.evaluate.prompt import Frame, put_question
from mllm_npu.evaluate.task import Example, Record
from mllm_npu.inference.options import GenerationOptions

PROMPT, PROMPT_NAME = "prompt", "prompt_name"
"""Facts of an example: the words of its prompt, and the name that its pictures share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawPrompt:
    """Something to draw.

    Args:
        name: unique in its file.
        text: what is asked for.
        seed: of its first picture; None follows from its place.
        tag: kind of prompt.
        checks: what the picture should show, if that is said.
        row: the line as it stands in the file.
    """

    name: str
    text: str
    seed: int | None = None
    tag: str = ""
    checks: Checks | None = None
    row: Mapping[str, Any]


def read_prompts(files: BenchmarkFiles, name: str) -> list[DrawPrompt]:
    """Prompts of a file in their order.

    Args:
        files: where it lies.
        name: of the file. In ``.txt`` every line that is not empty is a prompt. In ``.jsonl`` a
            line has ``prompt`` and, if wanted, ``id``, ``seed``, ``tag`` and what the picture
            should show: ``include`` and ``exclude`` as in GenEval, or both in ``checks``.

    Raises:
        DataError: it cannot be read, a line has another form, or there is no prompt in it.
    """
    if name.endswith(".txt"):
        lines = [line.strip() for line in files.read_text(name).splitlines()]
        rows: list[Mapping[str, Any]] = [{"prompt": line} for line in lines if line]
    else:
        rows = list(files.rows(name))
    prompts = [_read_prompt(row, n, f"{name} prompt {n + 1}") for n, row in enumerate(rows)]
    if not prompts:
        raise files.lacking(f"there is no prompt in {name}")
    check_names([prompt.name for prompt in prompts], f"{files.path}, {name}")
    return prompts


def draw_examples(
    prompts: Sequence[DrawPrompt],
    *,
    options: GenerationOptions,
    pictures_per_prompt: int,
    template: str,
    frame: Frame,
    force: bool,
) -> list[Example]:
    """Ask for several pictures of every prompt, each with noise of its own.

    Args:
        prompts: in order.
        options: how pictures are made; its seed is that of the first picture of the first prompt.
        pictures_per_prompt: from 1 on.
        template: how a prompt is asked for; ``{prompt}`` stands for its words.
        frame: see `Frame`.
        force: the reply begins with the picture and ends after it; else the model may also write.

    Raises:
        ConfigError: a template without ``{prompt}``, or no picture per prompt.
    """
    if "{prompt}" not in template or pictures_per_prompt < 1:
        raise ConfigError(
            f"template={template!r} and pictures_per_prompt={pictures_per_prompt} were asked for. "
            "Give a template with {prompt} in it, and at least 1 picture."
        )
    if force:
        # A picture counts as one token; what would be written behind it is not looked at.
        options = replace(options, images="force", max_new_tokens=1)
    examples: list[Example] = []
    for number, prompt in enumerate(prompts):
        first = prompt.seed
        if first is None:
            first = (options.seed or 0) + number * pictures_per_prompt
        asked = put_question([template.replace("{prompt}", prompt.text)], frame=frame)
        examples += [
            Example(
                name=f"{prompt.name}-{picture}",
                conversation=asked,
                answer=prompt.text,
                options=replace(options, seed=first + picture),
                groups=(prompt.tag,) if prompt.tag else (),
                facts={PROMPT: prompt.text, PROMPT_NAME: prompt.name},
            )
            for picture in range(pictures_per_prompt)
        ]
    return examples


def by_prompt(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by the name of their prompt, in order of first appearance."""
    found: dict[str, list[Record]] = {}
    for record in records:
        name = record.example.facts.get(PROMPT_NAME, record.example.name)
        found.setdefault(name, []).append(record)
    return found


def _read_prompt(row: Any, number: int, where: str) -> DrawPrompt:
    if not isinstance(row, dict):
        raise DataError(f"{where}: an object with prompt is needed, there is {row!r}. Write one.")
    text, seed = row.get("prompt"), row.get("seed")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: a prompt is needed, there is {text!r}. Write one.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise DataError(f"{where}: seed={seed!r}. Give a whole number from 0, or leave it out.")
    said = row if row.get("checks") is None else row["checks"]
    if not isinstance(said, dict):
        raise DataError(f"{where}: checks={said!r}. Give an object with include, or leave it out.")
    return DrawPrompt(
        name=str(row.get("id", f"{number:05d}")),
        text=text.strip(),
        seed=seed,
        tag=str(row.get("tag", "")),
        checks=read_checks(said, where) if "include" in said else None,
        row=row,
    )
