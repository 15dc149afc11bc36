"""Command that sets two evaluations side by side: evaluate compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Json, console, later

app = typer.Typer()

_EXAMPLES = """
Examples:

- two runs by the benchmarks both were asked: `mllm-npu evaluate compare runs/a runs/b`
- a frame against another: `mllm-npu evaluate compare runs/a/evaluation runs/a/chat`
- the data set they were trained on: `mllm-npu evaluate compare runs/a/records.jsonl
  runs/b/records.jsonl`
"""

_SIDE = "Folder of an evaluation or of a run; of a run, its benchmarks before its own data set."


@app.command("evaluate compare", epilog=_EXAMPLES)
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=_SIDE, show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="The same of another.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML page to write; compare.html in the folder of B.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two evaluations example by example, and show where they part.

    Per task: the difference of mean scores, its 95 % interval (paired bootstrap), and a p-value,
    by the exact McNemar test where every score is 0 or 1, by a permutation test of pairs elsewhere.
    Examples that only one of them has are left out and counted.
    """
    found = later("evaluate.compare").compare_evaluations(a, b)
    page = out or found.b.folder / "compare.html"
    later("evaluate.compare_page").write_comparison(page, found)
    if as_json:
        typer.echo(json.dumps(found.to_json(), ensure_ascii=False))
        return
    table = later("evaluate.compare_table")
    console.print(table.comparison_table(found))
    for line in (*table.comparison_notes(found), f"page: {page}"):
        console.print(line, markup=False, soft_wrap=True)
