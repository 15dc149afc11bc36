"""Answers to many questions as JSON lines, written as they come, so that a stopped run goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mllm_npu.errors import DataError, RequestError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.picture_files import check_folder, open_pictures, save_pictures
from mllm_npu.inference.question_file import Question
from mllm_npu.processing.conversation import Conversation, ask

if TYPE_CHECKING:
    from mllm_npu.inference.engine import Engine
    from mllm_npu.inference.events import Reply

CHUNK = 32
"""Questions whose answers are written together."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of many questions.

    Args:
        answered: now.
        refused: now, each with its reason in the file.
        kept: that the file had before.
    """

    answered: int
    refused: int
    kept: int


def answer_all(
    engine: Engine,
    questions: Sequence[Question],
    options: GenerationOptions,
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Answered:
    """Answer what the file has no answer to yet.

    Args:
        engine: that answers.
        questions: with keys that differ.
        options: of all; a question's own win.
        out: JSON lines, gone on with where it is there. Pictures lie in a folder beside it.
        progress: called with the questions that are done and their number.

    Raises:
        RequestError: the file cannot be written, or is of other questions.
    """
    check_folder(out.parent)
    done = _answered_before(out, questions)
    left = [question for question in questions if question.key not in done]
    counts = {"answered": 0, "refused": 0}
    with _appending(out) as file:
        progress(len(done), len(questions))
        for start in range(0, len(left), CHUNK):
            for line in _answer(engine, left[start : start + CHUNK], options, out):
                counts["refused" if "error" in line else "answered"] += 1
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            progress(len(done) + sum(counts.values()), len(questions))
    return Answered(kept=len(done), **counts)


def _answer(
    engine: Engine, questions: Sequence[Question], options: GenerationOptions, out: Path
) -> Iterator[dict[str, Any]]:
    """Lines for some questions, in their order."""
    prepared: dict[str, tuple[Conversation, GenerationOptions]] = {}
    refused: dict[str, str] = {}
    for question in questions:
        try:
            pictures = open_pictures(question.images)
            wish = dataclasses.replace(options, **question.options)
            prepared[question.key] = ask(question.prompt, pictures, system=question.system), wish
        except (RequestError, DataError, TypeError) as error:
            refused[question.key] = str(error)
    replies = _reply(engine, prepared, refused)
    for question in questions:
        line: dict[str, Any] = {"id": question.key, "prompt": question.prompt}
        if question.key in refused:
            yield line | {"error": refused[question.key]}
        else:
            yield line | _tell(replies[question.key], _picture_path(out, question.key))


def _reply(
    engine: Engine,
    prepared: dict[str, tuple[Conversation, GenerationOptions]],
    refused: dict[str, str],
) -> dict[str, Reply]:
    """Answers to what can be answered; the rest is told in ``refused``."""
    try:
        pairs = list(prepared.values())
        replies = engine.reply_many([talk for talk, _ in pairs], [wish for _, wish in pairs])
        return dict(zip(prepared, replies, strict=True))
    except (RequestError, DataError):
        # One of them cannot be answered as it was put; the others must not suffer.
        found: dict[str, Reply] = {}
        for key, (talk, wish) in prepared.items():
            try:
                found[key] = engine.reply(talk, wish)
            except (RequestError, DataError) as error:
                refused[key] = str(error)
        return found


def _tell(reply: Reply, path: Path) -> dict[str, Any]:
    drawn = save_pictures(reply.pictures, path) if reply.pictures else []
    return {
        "text": reply.text,
        "pictures": [str(picture) for picture in drawn],
        "boxes": [dataclasses.asdict(box) for box in reply.boxes],
        "finish_reason": reply.finish_reason,
        "num_new_tokens": reply.num_new_tokens,
    }


def _picture_path(out: Path, key: str) -> Path:
    """Where the pictures of an answer lie; no key leads out of the folder."""
    name = _UNSAFE.sub("_", key).lstrip(".") or "answer"
    return out.with_name(f"{out.stem}-pictures") / f"{name}.png"


def _answered_before(out: Path, questions: Sequence[Question]) -> set[str]:
    """Keys the file has lines for; a last line that was cut off is dropped."""
    if not out.is_file():
        return set()
    whole, _, rest = out.read_text(encoding="utf-8").rpartition("\n")
    try:
        lines = [json.loads(line) for line in whole.splitlines() if line.strip()]
        keys = {line["id"] for line in lines}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RequestError(f"{out} is there and holds no answers. Choose another --out.") from error
    strange = keys - {question.key for question in questions}
    if strange:
        raise RequestError(
            f"{out} has an answer to {sorted(strange)[0]!r}, which is not asked now. Choose "
            "another --out, or remove the file."
        )
    if rest:
        out.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    return keys


@contextmanager
def _appending(out: Path) -> Iterator[TextIO]:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise RequestError(f"{out} cannot be written: {error}. Choose another --out.") from error
