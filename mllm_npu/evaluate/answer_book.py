"""Keep replies by their question as they come, so that an evaluation that was stopped goes on.

A question is the same where its turns, pictures, options and choices are; a model is the same where
its files and the kind of device are. Each rank appends to a file of its own, and reads those of
all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.task import Example
from mllm_npu.inference.events import Likelihood, Reply
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.grounding import Box
from mllm_npu.processing.raster import Picture, StoredPicture, to_pillow

_PICTURES = "pictures"
_KEY_LENGTH = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a question led to.

    Args:
        reply: of the model; an empty one where it was refused.
        seconds: until it was there.
        refused: why it could not be asked; None where it was.
    """

    reply: Reply
    seconds: float
    refused: str | None = None


class AnswerBook:
    """Answers by question.

    Args:
        folder: where they are kept; None keeps them in memory only.
        model: tells one model from another (`fingerprint`); answers of others are not seen.
        rank: of this process, the only one that writes its file.

    Raises:
        DataError: the folder cannot be used, or holds a line that is no answer.
    """

    def __init__(self, folder: Path | None = None, *, model: str = "", rank: int = 0) -> None:
        self._folder, self._model, self._rank = folder, model, rank
        self._answers: dict[str, Answer] = {}
        self._read: dict[Path, int] = {}
        if folder is None:
            return
        try:
            (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
            _drop_cut_line(self._own_file)
        except OSError as error:
            raise DataError(
                f"Answers were to be kept in {folder}: {error}. Make it writable, or choose "
                "another place."
            ) from error
        self.reload()

    def find(self, key: str) -> Answer | None:
        """The answer to a question, if it is known."""
        return self._answers.get(key)

    def keep(self, key: str, answer: Answer) -> None:
        """Remember an answer; it outlives this process when this returns.

        Raises:
            DataError: it cannot be written.
        """
        self._answers[key] = answer
        if self._folder is None:
            return
        try:
            pictures = self._save_pictures(key, answer.reply)
            line = json.dumps({"key": key, **_to_json(answer), "pictures": pictures})
            with self._own_file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise DataError(
                f"An answer cannot be kept in {self._folder}: {error}. Make room and run the same "
                "command again; what was kept is not asked again."
            ) from error

    def reload(self) -> None:
        """Read what other ranks have written since."""
        if self._folder is None:
            return
        for path in sorted(self._folder.glob(f"{self._model}-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, _, _ = file.read().rpartition(b"\n")
            if whole:
                self._read[path] = self._read.get(path, 0) + len(whole) + 1
            for line in whole.splitlines():
                self._take(path, line)

    @property
    def _own_file(self) -> Path:
        return (self._folder or Path()) / f"{self._model}-{self._rank}.jsonl"

    def _take(self, path: Path, line: bytes) -> None:
        try:
            values = json.loads(line)
            self._answers[values["key"]] = _from_json(values, path.parent / _PICTURES)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DataError(
                f"{path} holds a line that is no answer ({error}). Remove the file, or run with "
                "--fresh; its questions are asked again."
            ) from error

    def _save_pictures(self, key: str, reply: Reply) -> list[str]:
        names = [f"{key}-{number}.png" for number in range(len(reply.pictures))]
        for name, picture in zip(names, reply.pictures, strict=True):
            partial = (self._folder or Path()) / _PICTURES / f"{name}.partial"
            picture.save(partial, format="PNG")
            partial.replace(partial.with_suffix(""))
        return names


def forget_answers(folder: Path) -> None:
    """Remove what was kept, of all models.

    Raises:
        DataError: it cannot be removed.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise DataError(
            f"Answers in {folder} were to be forgotten: {error}. Remove the folder by hand."
        ) from error


def question_key(example: Example) -> str:
    """Tells one question from another: what is asked, how, and among which choices."""
    turns = [
        [turn.role, [_part_key(part) for part in turn.parts]] for turn in example.conversation.turns
    ]
    options = dataclasses.asdict(example.options)
    asked = [turns, options, list(example.choices), example.redraws]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def fingerprint(paths: Iterable[Path]) -> str:
    """Tells one model from another by its files' names, sizes and times.

    Args:
        paths: files, and folders of which every file counts.
    """
    found = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
        for file in files:
            facts = file.stat()
            name = file.relative_to(path.parent).as_posix()
            found.update(f"{name}:{facts.st_size}:{facts.st_mtime_ns};".encode())
    return found.hexdigest()[:16]


def _part_key(part: Any) -> list[str]:
    kind = type(part).__name__
    if isinstance(part, Text):
        return [kind, part.text]
    return [kind, _picture_key(part.picture)]


def _picture_key(picture: Picture) -> str:
    if isinstance(picture, StoredPicture):
        return hashlib.sha256(picture.data).hexdigest()
    pixels = to_pillow(picture)
    return hashlib.sha256(f"{pixels.mode}{pixels.size}".encode() + pixels.tobytes()).hexdigest()


def _to_json(answer: Answer) -> dict[str, Any]:
    reply = answer.reply
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "tokens": [reply.num_prompt_tokens, reply.num_new_tokens],
        "boxes": [dataclasses.asdict(box) for box in reply.boxes],
        "choices": [dataclasses.asdict(choice) for choice in reply.choices],
        "seconds": round(answer.seconds, 4),
        "refused": answer.refused,
    }


def _from_json(values: dict[str, Any], pictures: Path) -> Answer:
    opened = []
    for name in values["pictures"]:
        with Image.open(pictures / name, formats=["PNG"]) as picture:
            opened.append(picture.convert("RGB"))
    prompt, new = values["tokens"]
    return Answer(
        reply=Reply(
            text=values["text"],
            pictures=tuple(opened),
            features=(torch.empty(0),) * len(opened),
            finish_reason=values["finish_reason"],
            num_prompt_tokens=prompt,
            num_new_tokens=new,
            boxes=tuple(Box(**box) for box in values["boxes"]),
            choices=tuple(Likelihood(**choice) for choice in values["choices"]),
        ),
        seconds=values["seconds"],
        refused=values["refused"],
    )


def _drop_cut_line(path: Path) -> None:
    """A process that was killed may have written half a line."""
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
