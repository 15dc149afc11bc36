"""Requests of lm-eval: which are asked together, and what they ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from PIL import Image

from mllm_npu.evaluate.lm_eval_options import Wish, read_wish
from mllm_npu.inference.likelihood import Tokens

_AT_ONCE = 512
"""Prompts that are handed to an engine together."""

_Item = TypeVar("_Item")


@dataclass(slots=True, kw_only=True)
class Group:
    """Requests that have a prompt and its pictures in common.

    Args:
        prompt: of all of them.
        pictures: beside it.
        numbers: of the requests, by continuation.
    """

    prompt: str
    pictures: tuple[Image.Image, ...]
    numbers: dict[str, list[int]] = field(default_factory=dict)


def group_requests(requests: Sequence[Instance]) -> list[Group]:
    """Requests by their prompt, in the order in which prompts come first."""
    groups: dict[tuple[str, tuple[int, ...]], Group] = {}
    for number, request in enumerate(requests):
        prompt, continuation = request.args[:2]
        pictures = pictures_of(request)
        key = (prompt, tuple(id(picture) for picture in pictures))
        group = groups.setdefault(key, Group(prompt=prompt, pictures=pictures))
        group.numbers.setdefault(continuation, []).append(number)
    return list(groups.values())


def pictures_of(request: Instance) -> tuple[Image.Image, ...]:
    """Pictures of a request; the same objects each time."""
    if len(request.args) < 3:
        return ()
    visual = request.args[2].get("visual") or ()
    return tuple(visual) if isinstance(visual, list | tuple) else (visual,)


def read_wishes(requests: Sequence[Instance], *, default_tokens: int, seed: int) -> list[Wish]:
    """How each reply is made; the second to the same prompt with the next seed.

    Args:
        requests: prompts with their ``generation_kwargs``.
        default_tokens: longest reply where those name none.
        seed: of the first reply to a prompt.
    """
    times: Counter[str] = Counter()
    wishes = []
    for request in requests:
        prompt, asked = request.args[:2]
        key = repr((prompt, asked, [id(picture) for picture in pictures_of(request)]))
        wishes.append(read_wish(asked, default_tokens=default_tokens, seed=seed + times[key]))
        times[key] += 1
    return wishes


def roll_windows(tokens: Tokens, prefix_id: int, length: int) -> list[tuple[Tokens, Tokens]]:
    """A text in windows of so many tokens: what each begins with, and what is weighed after it.

    Each token is weighed once, the first after the prefix; the last window is as long as the
    others, so that its tokens have as much before them.
    """
    windows = get_rolling_token_windows(
        list(tokens), prefix_token=prefix_id, max_seq_len=length, context_len=1
    )
    pairs = (make_disjoint_window(window) for window in windows)
    return [(tuple(prompt), tuple(weighed)) for prompt, weighed in pairs]


def in_chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """As many at a time as are handed to an engine together."""
    iterator = iter(items)
    while chunk := list(islice(iterator, _AT_ONCE)):
        yield chunk
