"""What a picture should show, as GenEval writes it down, and the questions that check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.short_answer import read_color, read_number, read_yes

Right = Callable[[str], bool | None]
"""Whether an answer is the right one; None where it cannot be understood."""

QUESTIONS: Mapping[str, str] = {
    "object": "Is there {a_name} in the picture? Answer yes or no.",
    "color": "What color is the {name} in the picture? Answer with one word.",
    "count": "How many {names} are there in the picture? Answer with a number.",
    "position": "Is the {name} {relation} the {other} in the picture? Answer yes or no.",
}
"""Wordings by what is asked. ``{color}`` may stand in "color" too: it is then a question that yes
answers. The color itself is asked for here, since a model that says yes to everything is no
judge."""

_OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_RELATIONS = {"left of": "to the left of", "right of": "to the right of"}
_PLURALS = {"person": "people", "sheep": "sheep", "knife": "knives", "skis": "skis"}
_PLURALS |= {"scissors": "scissors", "broccoli": "broccoli"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A clause of what a picture should show.

    Args:
        name: class of the objects.
        count: at least so many are there; where it is excluded, fewer.
        color: of all of them.
        relation: where they are beside others: "left of", "right of", "above", "below", ...
        other: class of those others.
    """

    name: str
    count: int = 1
    color: str | None = None
    relation: str | None = None
    other: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What a picture should show: all of ``include`` and none of ``exclude``."""

    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()

    @property
    def names(self) -> set[str]:
        """Classes that are spoken of."""
        return {wanted.name for wanted in (*self.include, *self.exclude)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question about a picture.

    Args:
        label: in short, for people who look at the answer.
        question: put to a model.
        is_right: reads the answer.
    """

    label: str
    question: str
    is_right: Right


def read_checks(row: Mapping[str, Any], where: str) -> Checks:
    """The checks of a line of GenEval's metadata: ``include`` and, where it is there, ``exclude``.

    Args:
        row: lists of clauses with ``class``, ``count`` (1 if not given), ``color`` and ``position``
            (a relation, and the number of the clause of ``include`` it refers to).
        where: file and line, for the message.

    Raises:
        DataError: it has another form.
    """
    try:
        include = [_read_wanted(clause) for clause in row["include"]]
        for number, clause in enumerate(row["include"]):
            if clause.get("position") is not None:
                relation, target = clause["position"]
                other = row["include"][int(target)]["class"]
                include[number] = _placed(include[number], str(relation), str(other))
        exclude = [_read_wanted(clause) for clause in row.get("exclude") or ()]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{where}: include and exclude must be lists of clauses with class and, if wanted, "
            f"count, color and position [relation, number of a clause] ({error!r}). "
            "Write them as GenEval's evaluation_metadata.jsonl does."
        ) from error
    if not include:
        raise DataError(f"{where}: include is empty, so nothing can be checked. Add a clause.")
    return Checks(include=tuple(include), exclude=tuple(exclude))


def make_checks(checks: Checks, questions: Mapping[str, str] = QUESTIONS) -> list[Check]:
    """The questions whose answers must all be right.

    Objects are asked for by yes and no where one is wanted, counted where more are or where too
    many are excluded. Positions are asked for in both directions, of which one must be denied: who
    affirms everything sees nothing.
    """
    made: list[Check] = []
    counted: set[str] = set()
    for wanted in checks.include:
        most = min((e.count - 1 for e in checks.exclude if e.name == wanted.name), default=None)
        if wanted.count == 1 and most is None:
            # Who is asked "is there a red cup?" is not asked after the cup before.
            if wanted.color is None or "{color}" not in questions["color"]:
                made.append(_exists(wanted.name, questions, is_there=True))
        else:
            counted.add(wanted.name)
            made.append(_counts(wanted.name, questions, wanted.count, most))
        made += _attributes(wanted, questions)
    for excluded in checks.exclude:
        if excluded.name in counted:
            continue
        if excluded.count == 1:
            made.append(_exists(excluded.name, questions, is_there=False))
        else:
            made.append(_counts(excluded.name, questions, 0, excluded.count - 1))
    return made


def control_check(name: str, questions: Mapping[str, str] = QUESTIONS) -> Check:
    """A question after an object that nobody asked for, to see whether the judge can deny."""
    return _exists(name, questions, is_there=False)


def fill_questions(given: Mapping[str, str | None]) -> dict[str, str]:
    """All wordings, some of them a person's own.

    Args:
        given: by kind; None where the usual one is wanted.

    Raises:
        ConfigError: an unknown kind, or a wording with an unknown field.
    """
    unknown = sorted(set(given) - set(QUESTIONS))
    if unknown:
        raise ConfigError(
            f"questions of kind {', '.join(unknown)} were given. Known are {', '.join(QUESTIONS)}."
        )
    questions = {kind: given.get(kind) or usual for kind, usual in QUESTIONS.items()}
    try:
        for kind, wording in questions.items():
            _ask(questions, kind, "cup", color="red", relation="above", other="dog")
            if "{" not in wording:
                raise ConfigError(f"questions.{kind}={wording!r} names no object. Put {{name}} in.")
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"a wording of questions has an unknown field ({error}). Use {{name}}, {{a_name}}, "
            "{names}, {color}, {relation} and {other}."
        ) from error
    return questions


def plural(name: str) -> str:
    """Several of a class: dogs, buses, people."""
    *before, last = name.split(" ")
    if last in _PLURALS:
        return " ".join([*before, _PLURALS[last]])
    return f"{name}es" if last.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def with_article(name: str) -> str:
    """One of a class: a dog, an oven."""
    return f"an {name}" if name[:1].lower() in set("aeiou") else f"a {name}"


def _attributes(wanted: Wanted, questions: Mapping[str, str]) -> list[Check]:
    """Questions after color and place of objects."""
    made: list[Check] = []
    name, color = wanted.name, wanted.color
    if color is not None and wanted.count == 1:
        question = _ask(questions, "color", name, color=color)
        made.append(
            Check(
                label=f"{color} {name}?",
                question=question,
                is_right=lambda text: read_color(text, color),
            )
        )
    elif color is not None:
        made.append(_counts(f"{color} {name}", questions, wanted.count, None))
    if wanted.relation is not None and wanted.other is not None:
        directions = [(wanted.relation, True)]
        if wanted.relation in _OPPOSITES:
            directions.append((_OPPOSITES[wanted.relation], False))
        for relation, is_so in directions:
            made.append(
                Check(
                    label=f"{name} {relation} {wanted.other}?",
                    question=_ask(
                        questions,
                        "position",
                        name,
                        relation=_RELATIONS.get(relation, relation),
                        other=wanted.other,
                    ),
                    is_right=_says(is_so),
                )
            )
    return made


def _exists(name: str, questions: Mapping[str, str], *, is_there: bool) -> Check:
    question = _ask(questions, "object", name)
    return Check(label=f"{with_article(name)}?", question=question, is_right=_says(is_there))


def _counts(name: str, questions: Mapping[str, str], least: int, most: int | None) -> Check:
    def is_right(text: str) -> bool | None:
        number = read_number(text)
        return None if number is None else least <= number and (most is None or number <= most)

    question = _ask(questions, "count", name)
    return Check(label=f"how many {plural(name)}?", question=question, is_right=is_right)


def _says(wanted: bool) -> Right:
    def is_right(text: str) -> bool | None:
        said = read_yes(text)
        return None if said is None else said is wanted

    return is_right


def _ask(questions: Mapping[str, str], kind: str, name: str, **fields: str) -> str:
    return questions[kind].format(
        name=name, names=plural(name), a_name=with_article(name), **fields
    )


def _read_wanted(clause: Mapping[str, Any]) -> Wanted:
    color = clause.get("color")
    wanted = Wanted(
        name=str(clause["class"]),
        count=int(clause.get("count", 1)),
        color=None if color is None else str(color),
    )
    if wanted.count < 1 or not wanted.name:
        raise ValueError(f"count={wanted.count} of class {wanted.name!r}")
    return wanted


def _placed(wanted: Wanted, relation: str, other: str) -> Wanted:
    return Wanted(
        name=wanted.name, count=wanted.count, color=wanted.color, relation=relation, other=other
    )
