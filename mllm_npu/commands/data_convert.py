"""Commands that turn data sets of others into indexed shards."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mllm_npu.commands.console import Json, bar, console, later

EXIT_BROKEN = 1
"""Everything that could be read was converted; a file of the source is broken, or no row came."""

_EXAMPLES = """
Examples:

- folder of pictures and texts: `mllm-npu data convert photos --out data/photos`
- jsonl of captions: `mllm-npu data convert captions.jsonl --images photos --out data/captions`
- webdataset tars: `mllm-npu data convert cc3m/ --out data/cc3m`
- numbered classes: `mllm-npu data convert imagenet/ --class-names names.txt --out data/imagenet`
- the original's pickled documents: `mllm-npu data convert mmc4/ --draw-share 0.1 --out data/mmc4`
- OCR: `mllm-npu data convert ocr/data --images ocr/images --out data/ocr`
- texts: `mllm-npu data convert texts.jsonl --out data/text`
- LLaVA, ShareGPT, OpenAI: `mllm-npu data convert llava.json --images coco --out data/llava`
- SEED-Data-Edit: `mllm-npu data convert edits/ --images seed_edit --out data/edit`
- Hugging Face folder: `mllm-npu data convert saved_dataset --out data/chat`
- parquet: `mllm-npu data convert train.parquet --workers 8 --out data/train`
"""

app = typer.Typer()

Source = Annotated[Path, typer.Argument(help="File or folder to convert.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Folder for the shards.", show_default=False)]
RowsPerShard = Annotated[int, typer.Option(min=1, help="Rows of one shard.")]


@app.command("convert", epilog=_EXAMPLES)
def convert_data(
    source: Source,
    out: Out = None,
    format_name: Annotated[
        str, typer.Option("--format", help="How to read it; recognised if not given.")
    ] = "",
    images: Annotated[
        Path | None, typer.Option(help="Folder that the picture paths of rows begin in.")
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="File with the name of a class a line, class 0 first.")
    ] = None,
    draw_share: Annotated[
        float, typer.Option(min=0, max=1, help="Pictures of pickled documents marked as drawn.")
    ] = 0.5,
    rows_per_shard: RowsPerShard = 1000,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0 takes as many as there are cores.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read a few rows, write nothing, show what comes.")
    ] = False,
    tolerate_broken: Annotated[
        bool, typer.Option("--tolerate-broken", help="Exit with 0 also if a file is broken.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn a data set into indexed shards; stopped and called again it goes on where it was.

    Rows that cannot be converted are in `quarantine.jsonl` of the output folder with their reasons.
    """
    options = later("data.convert.source_format").Options(
        images=str(images.resolve()) if images else "",
        class_names=_read_names(class_names),
        rows_per_shard=rows_per_shard,
        draw_share=draw_share,
    )
    progress, move = bar(f"converting {source}")
    if dry_run:
        with progress:
            found = later("data.convert.preview").preview(
                source, format_name=format_name, options=options, progress=move
            )
        _show(as_json, asdict(found), _preview_lines(found))
        return
    if out is None:
        raise typer.BadParameter("--out is missing; give the folder for the shards.")
    with progress:
        summary = later("data.convert.converter").convert(
            source,
            out,
            format_name=format_name,
            options=options,
            workers=workers or len(os.sched_getaffinity(0)),
            progress=move,
        )
    _report(summary, out, as_json)
    if not summary.rows or (summary.broken and not tolerate_broken):
        raise typer.Exit(EXIT_BROKEN)


@app.command("pictures", epilog="Example: `mllm-npu data pictures photos --out data/pictures`")
def convert_pictures(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures, texts beside them.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    rows_per_shard: RowsPerShard = 1000,
) -> None:
    """Turn a folder of pictures into indexed shards; equal names up to the dot are one row."""
    convert_data(folder, out=out, format_name="folder", rows_per_shard=rows_per_shard, workers=1)


def _read_names(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--class-names {path} cannot be read: {error}") from error


def _report(summary: Any, out: Path, as_json: bool) -> None:
    lines = [
        f"{summary.rows} rows in {out}: {_count(summary.kinds)}; shards: {summary.shards}, "
        f"{_size(summary.num_bytes)}; read as {summary.format_name}"
    ]
    if summary.resumed:
        lines.append(f"parts that were there already: {summary.resumed} of {summary.parts}")
    lines += [f"broken: {place}" for place in summary.broken]
    if summary.refused:
        lines.append(f"{sum(summary.refused.values())} not converted, see {out}/quarantine.jsonl")
    _show(as_json, {**asdict(summary), "out": str(out)}, lines, summary.refused)


def _preview_lines(found: Any) -> list[str]:
    rows = "unknown" if found.expected_rows is None else str(found.expected_rows)
    size = "unknown" if found.expected_bytes is None else f"about {_size(found.expected_bytes)}"
    lines = [
        f"format: {found.format_name}; parts: {found.parts}; rows: {rows}; shards: {size}",
        f"first rows read: {found.rows_read}, of them {_count(found.kinds)}",
    ]
    lines += [f"refused: {count} x {reason}" for reason, count in found.refused.items()]
    if found.first_refusal:
        lines.append(f"first refusal: {json.dumps(found.first_refusal, ensure_ascii=False)}")
    if found.example:
        members = ", ".join(f"{n} ({_size(size)})" for n, size in found.example["members"].items())
        lines += [f"example {found.example['key']}: {members}", found.example["text"]]
    return [*lines, "nothing was written"]


def _show(
    as_json: bool, values: dict[str, Any], lines: list[str], refused: dict[str, int] | None = None
) -> None:
    """One JSON line on stdout for machines, or lines and a table of reasons for people."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False))
        return
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if refused:
        table = Table("rows", "reason")
        for reason, count in refused.items():
            table.add_row(str(count), reason)
        console.print(table)


def _count(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"


def _size(num_bytes: int) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}" if unit != "B" else f"{num_bytes} B"
        num_bytes /= 1000  # type: ignore[assignment]
    return f"{num_bytes:.3g} GB"
