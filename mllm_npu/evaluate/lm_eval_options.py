"""How lm-eval wants a reply made, as generation options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from mllm_npu.errors import RequestError
from mllm_npu.inference.options import MOST_STOPS, GenerationOptions

_SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty")
_KNOWN = {*_SAMPLING, "until", "max_gen_toks", "do_sample", "temperature", "num_beams"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How one reply is made.

    Args:
        options: of the engine.
        stops: texts at which it is cut, those included that the engine has no room for.
    """

    options: GenerationOptions
    stops: tuple[str, ...]

    @property
    def samples(self) -> bool:
        """Whether another seed gives another reply."""
        return self.options.temperature > 0

    def cut(self, text: str) -> str:
        """A reply up to the first of the stops."""
        for stop in self.stops:
            text = text.split(stop)[0]
        return text


def read_wish(wishes: Mapping[str, Any], *, default_tokens: int, seed: int) -> Wish:
    """Options for what a task or ``--gen_kwargs`` asks.

    Args:
        wishes: ``generation_kwargs`` of a task; pictures are never drawn.
        default_tokens: longest reply where they name none.
        seed: of a reply that is sampled.

    Raises:
        RequestError: something is asked that the engine does not do.
    """
    asked = dict(normalize_gen_kwargs(dict(wishes), default_tokens))
    unknown = sorted(set(asked) - _KNOWN)
    if unknown:
        raise RequestError(
            f"generation_kwargs {', '.join(unknown)} were asked for; known are "
            f"{', '.join(sorted(_KNOWN))}. Leave them out of the task or of --gen_kwargs."
        )
    if asked.get("num_beams", 1) != 1:
        raise RequestError(
            f"num_beams={asked['num_beams']} was asked for; replies are written without beams. Use "
            "--gen_kwargs num_beams=1"
        )
    stops = tuple(stop for stop in asked["until"] if stop)
    options = GenerationOptions(
        max_new_tokens=asked["max_gen_toks"],
        temperature=asked.get("temperature", 0.0),
        stop=stops[:MOST_STOPS],
        seed=seed,
        images="forbid",
        **{name: asked[name] for name in _SAMPLING if name in asked},
    )
    return Wish(options=options, stops=stops)
