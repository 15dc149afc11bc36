"""Fill the templates of pages, which share one style sheet and their small parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mllm_npu.evaluate.figure import format_value

FOLDER = Path(__file__).parent


def fill_template(name: str, **values: Any) -> str:
    """A page as one self-contained HTML text; whatever is put into it is escaped.

    Args:
        name: of the template, beside this file.
        values: what it shows.
    """
    from jinja2 import (  # noqa: PLC0415 - only a page needs it
        Environment,
        FileSystemLoader,
        StrictUndefined,
    )

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_value
    return environment.get_template(name).render(**values)
