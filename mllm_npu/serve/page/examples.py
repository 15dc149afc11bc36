"""Questions to begin with: what the demo models were trained on, and general ones for others."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from mllm_npu.serve.page.words import Words

_THREE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAA+ElEQVR4nC2My0oCUQBAz71zrzNqUaAwYVJJRFgG"
    "urCYFrUQoo31D22iXT/TP7TsD4pe4CooisKRtJJKm4RSKhqbFuP2cM4BSG+dBMHZziwAEpDmW+Ummk1pMQB6qL63"
    "P1KaT2pAAT23duoYqRgMgHcUFYlu56Hth4n47filcvJbWzI0Aihur/A5PXH/FU7Bf2/fPuXXxgElAuD8Oa2XNqwr"
    "F8CIjSYUUL5+3LUjSMyxbH5OQ9PtZnLDKEy7MNXwmsStiKkEEiOecRYMyBXs12oPxU/LEzPr7mTx4/Ki0UeAdDaX"
    "lWW+3B1W6qBE8FetrS5C/+C4BeIfduJLPbbgjUAAAAAASUVORK5CYII="
)
_EIGHT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAA+0lEQVR4nC3NTUvCcADA4d+2f1aOIRS1zUQrrBZI"
    "jCI6eOlL9AX6et2iQ5eijgUSlVBGaTDYjJik7qX5snXI63N5JCBnlAv79ejyyotAAPpBJQoe89XhzQy2TjYb9w3r"
    "1Gp5IBDaWjH33WiO5ypLgGDBkB78iyZfdwVZTDOZaRzEkxTM6UCalxHEn+UNUy6NbdvPQhBSRmgeDkvLK+qTD4gM"
    "RG5R3akn17cO/63cbz+PNKU7zs8Axzt/ObP3jpKwPxJAmvy8u26nYNWCZk8GstX1IvRePX1bRQBBV98NQk1ytcEE"
    "CSge11JFSQLHafu/Aog6hlVV/bfWhwt/64Vl1DFG/rQAAAAASUVORK5CYII="
)
"""Two handwritten digits of 16x16 pixels that no model was trained on (scikit-learn's scans)."""

_SCENE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAABCElEQVR42mMUEpJgoCVgYqAxoLkFLFhFeRkZ1ViZ"
    "GRgYzv76Q2ULeBkZU7k5IrjYIdzP///P/vpjxbefZFvAzMnJg8yfJ8Rrz84K57IzMlqysfIyMh4n1ysocZDKzaHG"
    "woypKIKL3ZiNhQoWILsdDdizsVLBAqzOh0qxMlPBgs///+NS9/nffypYcA53TJ79TY1Inv31B1ZFz//+2/r9FxWS"
    "6dt//5///WfExsLOyIhseunHr8///SPPAkbMwk6SmSmSkx0Sqwd+/t76/ReeuCHHgtHSdFAU1/gBG486EwsvfjU/"
    "Ppwh3wIh5RIOfmP8ah4cMhqN5FELRi0Y2WXRlxeb4EXNwFc4AIyGSYSoyOADAAAAAElFTkSuQmCC"
)
"""A red circle and a blue square, 32x32 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question that can be asked at a click.

    Args:
        text: of the question.
        pictures: PNG files.
    """

    text: str
    pictures: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Examples for one model.

    Args:
        chat: questions.
        drawings: what may be drawn.
        edits: changes of a picture.
    """

    chat: tuple[Example, ...]
    drawings: tuple[Example, ...]
    edits: tuple[Example, ...] = ()


_DIGITS = Examples(
    chat=(
        Example(text="Draw a seven."),
        Example(text="Which digit is this?", pictures=(_THREE,)),
        Example(text="What is the sum of the two digits?", pictures=(_THREE, _EIGHT)),
    ),
    drawings=(
        Example(text="Draw a seven."),
        Example(text="Draw a handwritten four."),
        Example(text="Please paint the digit nine."),
    ),
)
_SCENES = Examples(
    chat=(
        Example(text="Describe the image.", pictures=(_SCENE,)),
        Example(text="How many shapes are there?", pictures=(_SCENE,)),
        Example(text="Draw a green cross at the top left."),
    ),
    drawings=(
        Example(text="Draw a green cross at the top left."),
        Example(text="Make a picture of a yellow triangle at the bottom right."),
    ),
    edits=(
        Example(text="Add a white cross at the top right.", pictures=(_SCENE,)),
        Example(text="Turn the blue square into a circle.", pictures=(_SCENE,)),
        Example(text="Paint the blue square yellow.", pictures=(_SCENE,)),
    ),
)
_TRAINED = {"digits": _DIGITS, "scenes": _SCENES}
"""By how the names of the models begin."""


def examples_for(model: str | None, words: Words) -> Examples:
    """What to ask a model. The demo models understand English only."""
    for name, examples in _TRAINED.items():
        if (model or "").lower().startswith(name):
            return examples
    return Examples(
        chat=tuple(Example(text=text) for text in words.general_examples),
        drawings=tuple(Example(text=text) for text in words.general_drawings),
    )
