"""Many questions from a JSON lines file, or one question for every picture of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mllm_npu.errors import RequestError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_files import ENDINGS

_OPTIONS = {entry.name for entry in fields(GenerationOptions)} - {"images"}
_OWN = ("id", "prompt", "images", "system", "drawing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of many.

    Args:
        key: unlike that of any other; an answer carries it.
        prompt: the words; may be empty where there are pictures.
        images: files to look at.
        system: what stands before the question.
        options: of `GenerationOptions`, where they differ from those of all.
    """

    key: str
    prompt: str
    images: tuple[Path, ...] = ()
    system: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def read_questions(path: Path, prompt: str = "") -> list[Question]:
    """Read a file or a folder of questions.

    Args:
        path: JSON lines with ``prompt`` and, if wanted, ``id``, ``images`` (beside the file),
            ``system``, ``drawing`` (auto, force or forbid) and generation options; or a folder of
            pictures.
        prompt: asked of every picture of a folder.

    Raises:
        RequestError: nothing is there, a line is no question, or two have one id.
    """
    if path.is_dir():
        return _of_folder(path, prompt)
    if not path.is_file():
        raise RequestError(f"--batch {path} is not there. Give a .jsonl file or a folder.")
    if prompt:
        raise RequestError(
            f"--batch {path} has a prompt in each line; leave out {prompt!r}, or give a folder of "
            "pictures."
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    questions = [
        _of_line(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    seen: set[str] = set()
    for question in questions:
        if question.key in seen:
            raise RequestError(f"{path} has the id {question.key!r} twice. Make them differ.")
        seen.add(question.key)
    if not questions:
        raise RequestError(f"{path} has no line. Give one question per line.")
    return questions


def _of_folder(folder: Path, prompt: str) -> list[Question]:
    pictures = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS)
    if not pictures:
        raise RequestError(
            f"--batch {folder} has no pictures. Give a folder with {', '.join(ENDINGS)} files, or "
            "a .jsonl file."
        )
    if not prompt:
        raise RequestError(f"A question for the pictures in {folder} is missing. Give a prompt.")
    return [Question(key=file.name, prompt=prompt, images=(file,)) for file in pictures]


def _of_line(line: str, number: int, path: Path) -> Question:
    where = f"{path} line {number}"
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise RequestError(f"{where} is no JSON: {error}. Mend or remove it.") from error
    if not isinstance(values, dict):
        raise RequestError(f"{where} is no object. Write {{'prompt': ...}}.")
    unknown = sorted(set(values) - _OPTIONS - set(_OWN))
    if unknown:
        known = ", ".join([*_OWN, *sorted(_OPTIONS)])
        raise RequestError(f"{where} has {', '.join(unknown)}; known are {known}.")
    prompt, images = values.get("prompt", ""), values.get("images", [])
    system = values.get("system", "")
    texts = [prompt, system, *(images if isinstance(images, list) else [None])]
    if not all(isinstance(text, str) for text in texts) or not (prompt or images):
        raise RequestError(
            f"{where} needs a prompt that is text, and images as a list of paths. Mend it."
        )
    options = {name: values[name] for name in values if name in _OPTIONS}
    if "drawing" in values:
        options["images"] = values["drawing"]
    return Question(
        key=str(values.get("id", number)),
        prompt=prompt,
        images=tuple(path.parent / image for image in images),
        system=system,
        options=options,
    )
