"""Fill in what the planner says of the zoo's models: memory and speed of their training.

    python scripts/plan_cards.py                 # all cards, minutes
    python scripts/plan_cards.py llava_1_5_7b

A figure is planned where its card says ``by: mllm-npu plan ...``; that command is run, and the line
above it gets the value: GiB of a device under ``memory``, tokens per second of a device under
``speed``. One JSON line for each card says what was written.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mllm_npu.errors import ConfigError
from mllm_npu.plan.cluster import GIB
from mllm_npu.plan.plan import Plan, make_plan
from mllm_npu.zoo.card import CARD_FOLDER, card_names, find_card

COMMAND = "mllm-npu plan "
_FIGURE = r"(?m)^(?P<start>    value: ).*(?P<end>\n    by: {by})$"


def needed_gib(plan: Plan) -> float:
    """Memory of a device, with what its allocator loses."""
    return round(plan.outcome.fit.needed / GIB, 1)


def tokens_per_second(plan: Plan) -> float:
    """Of one device, two digits: more is not known."""
    return float(f"{plan.outcome.step.tokens_per_second_rank:.2g}")


FIGURES: dict[str, Callable[[Plan], float]] = {"memory": needed_gib, "speed": tokens_per_second}


def fill(text: str, part: str, by: str, value: float) -> str:
    """The card with a value above the command that gives it.

    Args:
        text: of the card.
        part: "memory" or "speed"; the value stands below this key.
        by: the command.
        value: that it gives.

    Raises:
        ValueError: the card has no such figure there.
    """
    begin = text.index(f"\n{part}:\n")
    block = re.match(r"\n\w+:\n(?:[ ].*\n)*", text[begin:])
    assert block is not None
    end = begin + block.end()
    shown = f"{value:g}"
    figure = re.compile(_FIGURE.format(by=re.escape(by)))
    filled, count = figure.subn(rf"\g<start>{shown}\g<end>", text[begin:end].rstrip("\n"))
    if count != 1:
        raise ValueError(f"{part} has {count} figures by {by!r}; one is needed.")
    return text[:begin] + filled + "\n" + text[end:]


def plan_card(name: str, folder: Path = CARD_FOLDER) -> dict[str, float]:
    """Plan what a card asks for and write it there.

    Args:
        name: of the card.
        folder: with the cards.

    Returns:
        The value of each part that was planned.
    """
    card, file = find_card(name, folder), folder / f"{name}.yaml"
    plans: dict[str, Plan] = {}
    written: dict[str, float] = {}
    for part, value_of in FIGURES.items():
        for entry in getattr(card, part):
            if not entry.by.startswith(COMMAND):
                continue
            if entry.by not in plans:
                plans[entry.by] = make_plan(shlex.split(entry.by.removeprefix(COMMAND)))
            written[part] = value_of(plans[entry.by])
            text = fill(file.read_text(encoding="utf-8"), part, entry.by, written[part])
            file.write_text(text, encoding="utf-8")
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="cards; none means all", metavar="CARD")
    parser.add_argument("--folder", type=Path, default=CARD_FOLDER, help="with the cards")
    asked = parser.parse_args(arguments)
    for name in asked.names or card_names(asked.folder):
        try:
            written = plan_card(name, asked.folder)
        except ConfigError as error:
            parser.error(str(error))
        sys.stdout.write(json.dumps({"card": name} | written) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
