"""Ask a model what a drawn picture shows, and judge the picture by its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mllm_npu.evaluate.picture_checks import Check, fill_questions
from mllm_npu.evaluate.prompt import put_question
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import find_model_folder, load_engine

NOTE = (
    "Judged by answers of a multimodal model to questions about the picture, not by the detectors "
    "of the official evaluation. A model that judges its own pictures is weak evidence: what it "
    "cannot tell apart it neither draws nor misses. Give another run as judge, and see the control."
)

_RIGHT, _WRONG = "right", "wrong"
_CONTROL = "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A picture and what is asked about it.

    Args:
        picture: RGB.
        checks: at least one; all must be passed.
        control: asked beside them; it does not count.
    """

    picture: Image.Image
    checks: Sequence[Check]
    control: Check | None = None

    @property
    def asked(self) -> Sequence[Check]:
        """All questions, the control last."""
        return [*self.checks, *([] if self.control is None else [self.control])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge found in a picture.

    Args:
        is_right: whether every check was passed.
        is_read: whether every answer had a form that could be understood.
        denies: whether the judge denied what nobody had asked for; None where it was not asked.
        words: all of it in a line, which ``read_verdict`` understands.
    """

    is_right: bool
    is_read: bool
    denies: bool | None
    words: str


class PictureJudge:
    """Puts questions about pictures to a model.

    Args:
        engine: answers.
        questions: wordings by kind; see `QUESTIONS` for those that are not given.
        max_new_tokens: of an answer.

    Raises:
        ConfigError: a wording that cannot be used.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        questions: Mapping[str, str | None] | None = None,
        max_new_tokens: int = 16,
    ) -> None:
        self.engine = engine
        self.questions = fill_questions(questions or {})
        self._options = GenerationOptions(
            max_new_tokens=max_new_tokens, temperature=0.0, images="forbid"
        )

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """Ask everything about some pictures, all questions together."""
        asked = [(case.picture, check) for case in cases for check in case.asked]
        replies = self.engine.reply_many(
            [put_question([picture, check.question], frame="chat") for picture, check in asked],
            [self._options] * len(asked),
        )
        answers = iter([reply.text.strip() for reply in replies])
        return [_find(case, [next(answers) for _ in case.asked]) for case in cases]


def judging_engine(engine: Engine, judge: str | None) -> Engine:
    """The engine itself, or the one of another run.

    Args:
        engine: of the run that is measured.
        judge: folder of another run; None lets the model judge itself.

    Raises:
        ConfigError: there is no model in that folder, or it cannot answer.
    """
    if judge is None:
        return engine
    return load_engine(find_model_folder(Path(judge)), engine.device.type)[0]


def read_verdict(words: str | None) -> tuple[bool, bool | None]:
    """Whether a picture was right, and whether the judge denied the control, from a record.

    Args:
        words: of a verdict, or anything else, which is a picture that is not right.
    """
    first, *said = (words or "").split("; ")
    controls = [part for part in said if part.startswith(f"{_CONTROL} ")]
    denies = controls[-1].startswith(f"{_CONTROL} {_RIGHT}:") if controls else None
    return first == _RIGHT, denies


def _find(case: Case, answers: Sequence[str]) -> Verdict:
    found = [check.is_right(text) for check, text in zip(case.asked, answers, strict=True)]
    is_right = all(found[: len(case.checks)])
    said = [f"{check.label} {text}" for check, text in zip(case.checks, answers, strict=False)]
    denies = None if case.control is None else found[-1] is True
    if case.control is not None:
        said.append(f"{_CONTROL} {_word(found[-1] is True)}: {case.control.label} {answers[-1]}")
    return Verdict(
        is_right=is_right,
        is_read=None not in found,
        denies=denies,
        words="; ".join([_word(is_right), *said]),
    )


def _word(is_right: bool) -> str:
    return _RIGHT if is_right else _WRONG
