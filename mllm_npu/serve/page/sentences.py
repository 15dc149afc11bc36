"""What the page says about how things are, in the person's language."""

from __future__ import annotations

from mllm_npu.serve.page.growth import Growth
from mllm_npu.serve.page.pictures import MAX_BYTES, PictureError
from mllm_npu.serve.page.settings import SettingsError
from mllm_npu.serve.page.trouble import AskError
from mllm_npu.serve.page.words import Words

QUIET_SECONDS = 2
"""A wait shorter than this needs no number."""


def say_waiting(growth: Growth, words: Words) -> str:
    """How long it has taken so far, and who comes first."""
    said = []
    if growth.ahead is not None:
        said.append(words.ahead.format(number=growth.ahead) if growth.ahead else words.next_in_line)
    return " · ".join(said + _elapsed(growth, words))


def say_drawing(growth: Growth, words: Words, *, total: int) -> str:
    """The same while pictures are drawn, and how many of them there are."""
    num_drawn = sum(len(reply.drawn) for reply in growth.replies.values())
    if not num_drawn:
        return say_waiting(growth, words)
    drawn = words.drawn_so_far.format(number=num_drawn, total=total)
    return " · ".join([drawn, *_elapsed(growth, words)])


def _elapsed(growth: Growth, words: Words) -> list[str]:
    seconds = growth.seconds
    return [words.elapsed.format(seconds=seconds)] if seconds >= QUIET_SECONDS else []


def say_trouble(error: AskError, words: Words) -> str:
    """What went wrong with a question."""
    return words.troubles[error.trouble].format(said=error.said).strip()


def say_bad_picture(error: PictureError, words: Words) -> str:
    """Why a file is not taken."""
    return words.bad_picture.format(said=error, number=MAX_BYTES // 2**20)


def say_bad_number(error: SettingsError, words: Words) -> str:
    """What a field takes."""
    fields = {
        "temperature": words.temperature,
        "top_p": words.top_p,
        "max_tokens": words.max_tokens,
        "seed": words.seed,
        "steps": words.steps,
        "guidance": words.guidance,
        "image_guidance": words.image_guidance,
    }
    kind = words.whole_number if error.whole else words.any_number
    form = words.bad_number if error.high is None else words.bad_range
    high = 0 if error.high is None else error.high
    return form.format(
        field=fields[error.name], said=kind, low=f"{error.low:g}", high=f"{high:.12g}"
    )
