"""Command that runs the same configuration on two sides and names the first module that differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mllm_npu.commands.console import Json, console, later

EXIT_APART = 1

_EXAMPLES = """
Examples:

- fused operations and their references:
  `mllm-npu doctor parity fused reference experiment=digits/mllm`
- two dtypes:
  `mllm-npu doctor parity cpu cpu,parallel.compute_dtype=bfloat16 experiment=digits/mllm`
- two runs: `mllm-npu doctor parity runs/a runs/b`
- two machines: `mllm-npu doctor parity cpu --record a.safetensors experiment=digits/mllm` on the
  one, `mllm-npu doctor parity a.safetensors cpu experiment=digits/mllm` on the other
"""


def add_parity(app: typer.Typer, name: str = "parity") -> None:
    """Give a group of commands this one, under a name."""
    app.command(name, epilog=_EXAMPLES)(parity)


def parity(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [OVERRIDE]",
            help="Two sides, each a device, fused, reference, a folder of a run or a recorded "
            "file, perhaps with settings of its own (cpu,key=value); then Hydra overrides.",
            show_default=False,
        ),
    ],
    isolate: Annotated[
        bool,
        typer.Option("--isolate", help="Also run every module alone, on what side A was given."),
    ] = False,
    steps: Annotated[int, typer.Option(min=0, help="Updates to make and compare as well.")] = 0,
    rtol: Annotated[
        float | None,
        typer.Option(min=0, help="Relative error (L2) allowed, instead of that of the dtypes."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Write side A to this .safetensors file, to compare with it elsewhere."),
    ] = None,
    memory_gib: Annotated[
        float,
        typer.Option(min=0, help="Of side A that stays in memory; the rest waits in files."),
    ] = 4.0,
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two sides module by module, forward and backward; exit code 1 where they part.

    One pack of the run goes through the same weights on both sides (on npu and cpu, say), and the
    first module is named whose outputs or gradients are further apart than rounding explains.
    Dropout is off, and everything runs in one process.
    """
    sides, overrides = later("compare.side").split_words(words)
    if len(sides) > 2 or len(sides) < (1 if record else 2):
        raise typer.BadParameter(
            f"{len(sides)} sides were given ({', '.join(sides) or 'none'}); give two, or one and "
            "--record"
        )
    wish = later("compare.run").Wish(isolate=isolate, steps=steps, rtol=rtol, memory_gib=memory_gib)
    found = later("compare.parity").compare_sides(
        sides,
        overrides,
        wish,
        record=record,
        say=lambda line: console.print(line, markup=False, soft_wrap=True),
    )
    if found is None:
        return
    report = later("compare.report")
    if as_json:
        typer.echo(json.dumps(report.to_json(found), ensure_ascii=False))
    else:
        console.print(report.show(found, width=console.width))
        style = "bold green" if found.verdict.agrees else "bold red"
        for line in found.verdict.lines():
            console.print(line, style=style, markup=False, soft_wrap=True)
            style = ""
    if out is not None:
        later("compare.page").write_page(out, found)
        console.print(f"page: {out}", markup=False, soft_wrap=True)
    if not found.verdict.agrees:
        raise typer.Exit(EXIT_APART)


app = typer.Typer()
add_parity(app, "doctor parity")
