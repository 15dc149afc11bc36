"""Judge drawn pictures by what their prompts say should be there, and add the findings up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mllm_npu.errors import DataError
from mllm_npu.evaluate.figure import Figure, statistic_figure
from mllm_npu.evaluate.picture_checks import control_check, make_checks
from mllm_npu.evaluate.picture_judge import Case, PictureJudge, Verdict, read_verdict
from mllm_npu.evaluate.prompt_file import PROMPT_NAME, DrawPrompt, by_prompt
from mllm_npu.evaluate.task import Example, Record
from mllm_npu.inference.events import Reply

NO_PICTURE = "no picture"

_AT_ONCE = 64
"""Pictures whose questions are put together."""

_NOTHING = Verdict(is_right=False, is_read=True, denies=None, words=NO_PICTURE)


class PromptChecker:
    """Asks a judge about every picture once.

    Args:
        prompts: by name; those without checks cannot be judged.
        judge: answers.
    """

    def __init__(self, *, prompts: Sequence[DrawPrompt], judge: PictureJudge) -> None:
        self._prompts = {prompt.name: prompt for prompt in prompts}
        self._controls = find_controls(prompts)
        self._judge = judge
        self._verdicts: dict[str, Verdict] = {}

    def verdict(self, example: Example, reply: Reply) -> Verdict:
        """What the judge found in the first picture of a reply.

        Raises:
            DataError: the prompt has no checks.
        """
        if not reply.pictures:
            return _NOTHING
        if example.name not in self._verdicts:
            self.look([(example, reply)])
        return self._verdicts[example.name]

    def look(self, replies: Sequence[tuple[Example, Reply]]) -> None:
        """Ask about the pictures of many replies together.

        Raises:
            DataError: a prompt has no checks.
        """
        new = [(e, r) for e, r in replies if r.pictures and e.name not in self._verdicts]
        for start in range(0, len(new), _AT_ONCE):
            chunk = new[start : start + _AT_ONCE]
            verdicts = self._judge.judge([self._case(*pair) for pair in chunk])
            for (example, _), verdict in zip(chunk, verdicts, strict=True):
                self._verdicts[example.name] = verdict

    def _case(self, example: Example, reply: Reply) -> Case:
        prompt = self._prompts[example.facts[PROMPT_NAME]]
        if prompt.checks is None:
            raise DataError(
                f"The picture of prompt {prompt.name!r} was to be checked, it does not say what "
                "should be there. Add include to its line."
            )
        questions, control = self._judge.questions, self._controls.get(prompt.name)
        return Case(
            picture=reply.pictures[0],
            checks=make_checks(prompt.checks, questions),
            control=None if control is None else control_check(control, questions),
        )


def find_controls(prompts: Sequence[DrawPrompt]) -> dict[str, str]:
    """For each prompt the class of a later one that it does not speak of, where there is one."""
    checked = [(prompt, prompt.checks) for prompt in prompts if prompt.checks is not None]
    controls: dict[str, str] = {}
    for number, (prompt, checks) in enumerate(checked):
        for _, other in (*checked[number + 1 :], *checked[:number]):
            name = other.include[0].name
            if name not in checks.names and name.lower() not in prompt.text.lower():
                controls[prompt.name] = name
                break
    return controls


def prompt_figure(
    *,
    name: str,
    title: str,
    records: Sequence[Record],
    values: Mapping[str, float],
    citation: str = "",
    num_unread: int | None = None,
    level: int = 0,
) -> Figure:
    """The mean over pictures; its interval draws whole prompts, as their pictures are alike.

    Args:
        name: see `Figure`.
        title: see `Figure`.
        records: at least one that has a value.
        values: of each record by the name of its example; those without are left out.
        citation: see `Figure`.
        num_unread: see `Figure`.
        level: see `Figure`.
    """
    units = [
        [values[record.example.name] for record in own if record.example.name in values]
        for own in by_prompt(records).values()
    ]
    return statistic_figure(
        name=name,
        title=title,
        units=[unit for unit in units if unit],
        statistic=lambda drawn: sum(map(sum, drawn)) / sum(map(len, drawn)),
        num=len(values),
        citation=citation,
        num_unread=num_unread,
        level=level,
    )


def control_figures(records: Sequence[Record], name: str) -> list[Figure]:
    """How often the judge denied what nobody had asked for: a judge below 1 sees what is not there.

    Args:
        records: with the words of their verdicts.
        name: of the task.
    """
    found = {record.example.name: read_verdict(record.understood)[1] for record in records}
    denied = {name: float(denies) for name, denies in found.items() if denies is not None}
    if not denied:
        return []
    figure = prompt_figure(
        name=f"{name}/control",
        title="Control: the judge denies an object that nobody asked for",
        records=records,
        values=denied,
        level=1,
    )
    return [figure]
