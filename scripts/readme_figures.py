"""Fill the tables of measured figures in the READMEs from the reports that runs wrote."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table.

    Args:
        key: name of the figure in report.json.
        english, chinese: what is measured.
        form: how the number is written.
        target: what it must reach, as text.
    """

    key: str
    english: str
    chinese: str
    form: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One README.

    Args:
        file: its name.
        field: attribute of Row that holds its words.
        header: titles of the columns.
        measured: sentence under the table; {machine} is replaced.
    """

    file: str
    field: str
    header: tuple[str, str, str]
    measured: str


LANGUAGES = (
    Language(
        file="README.md",
        field="english",
        header=("measured on held-out data", "figure", "target"),
        measured="Read from `{report}`, measured on {machine}.",
    ),
    Language(
        file="README_ZH.md",
        field="chinese",
        header=("在保留数据上的测量项", "数值", "目标"),
        measured="取自 `{report}`，测量环境：{machine}。",
    ),
)
TRAIN_ROWS = (
    Row(
        key="train_cpu_seconds",
        english="CPU seconds of all training stages",
        chinese="全部训练阶段的 CPU 秒数",
        form="{:.0f}",
        target="",
    ),
    Row(
        key="peak_rss_gib",
        english="peak memory, GiB",
        chinese="内存峰值（GiB）",
        form="{:.2f}",
        target="≤ 3",
    ),
)
DIGITS_ROWS = (
    Row(
        key="comprehension_accuracy",
        english="which digit is it",
        chinese="识别数字",
        form="{:.1%}",
        target="≥ 98 %",
    ),
    Row(
        key="reconstruction_judged",
        english="scan → encoder → decoder, judged the same digit",
        chinese="扫描 → 编码器 → 解码器，判为同一数字",
        form="{:.1%}",
        target="≥ 98 %",
    ),
    Row(
        key="reconstruction_mse",
        english="the same, mean squared error",
        chinese="同上，均方误差",
        form="{:.4f}",
        target="≤ 0.02",
    ),
    Row(
        key="draw_judged",
        english="drawn on request, judged the asked digit",
        chinese="按要求画数字，判为所要求的数字",
        form="{:.1%}",
        target="≥ 98 %",
    ),
    Row(
        key="draw_diversity",
        english="diversity of the drawn digits, real scans = 1",
        chinese="所画数字的多样性（真实扫描 = 1）",
        form="{:.2f}",
        target="≥ 0.5",
    ),
    Row(
        key="judge_accuracy",
        english="the judge (SVM) on real held-out scans",
        chinese="裁判（SVM）在真实保留扫描上的准确率",
        form="{:.1%}",
        target="",
    ),
    Row(
        key="ocr_exact_match",
        english="strips of 2-6 digits read without a mistake",
        chinese="2-6 位数字条全部读对",
        form="{:.1%}",
        target="≥ 85 %",
    ),
    Row(
        key="sum_accuracy",
        english="sum of the digits in two pictures",
        chinese="两张图中数字之和",
        form="{:.1%}",
        target="≥ 85 %",
    ),
    Row(
        key="train_seconds",
        english="seconds of all training stages",
        chinese="全部训练阶段的秒数",
        form="{:.0f}",
        target="≤ 420",
    ),
    *TRAIN_ROWS,
)
SCENES_ROWS = (
    Row(
        key="scenes_qa",
        english="questions about a scene",
        chinese="场景问答",
        form="{:.1%}",
        target="≥ 96 %",
    ),
    Row(
        key="scenes_caption_exact",
        english="captions right word for word",
        chinese="描述逐字正确",
        form="{:.1%}",
        target="≥ 97 %",
    ),
    Row(
        key="scenes_draw_strict",
        english="unseen compositions drawn with every object right",
        chinese="未见组合，画出的每个物体都正确",
        form="{:.1%}",
        target="≥ 95 %",
    ),
    Row(
        key="scenes_edit_strict",
        english="scenes edited as told, with every object right",
        chinese="按指令编辑，每个物体都正确",
        form="{:.1%}",
        target="",
    ),
    Row(
        key="train_seconds",
        english="seconds of all training stages",
        chinese="全部训练阶段的秒数",
        form="{:.0f}",
        target="≤ 600",
    ),
    *TRAIN_ROWS,
)
REGIONS = {"figures": DIGITS_ROWS, "figures-scenes": SCENES_ROWS}


def read_figures(report: Path) -> dict[str, object]:
    """A report with its figures beside the rest, whether they lie at the top or under "figures"."""
    content: dict[str, object] = json.loads(report.read_text(encoding="utf-8"))
    figures = content.get("figures")
    return {**content, **figures} if isinstance(figures, dict) else content


def describe_machine(report: Mapping[str, object]) -> str:
    """The machine a report was made on, in one line."""
    machine, versions = report["machine"], report["versions"]
    if not isinstance(machine, Mapping) or not isinstance(versions, Mapping):
        raise TypeError("machine and versions of the report are needed as keys and values.")
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"device {machine['device']}, torch {versions['torch']}"
    )


def table(
    figures: Mapping[str, object], rows: Sequence[Row], language: Language, report: str
) -> str:
    """The Markdown table of a region, with the sentence that says where it comes from.

    Raises:
        KeyError: the report lacks a figure; a table with holes would pass for a result.
    """
    lines = ["| " + " | ".join(language.header) + " |", "|---|---|---|"]
    for row in rows:
        if row.key not in figures:
            raise KeyError(f"{row.key} is not in {report}. Run mllm-npu evaluate again.")
        figure = row.form.format(figures[row.key])
        lines.append(f"| {getattr(row, language.field)} (`{row.key}`) | {figure} | {row.target} |")
    measured = language.measured.format(report=report, machine=describe_machine(figures))
    return "\n".join([*lines, "", measured])


def fill(page: str, region: str, content: str) -> str:
    """The page with what stands between a region's marks replaced.

    Raises:
        ValueError: the page has no such region.
    """
    begin, end = f"<!-- {region}:begin -->", f"<!-- {region}:end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the marks {begin} and {end} are needed once in the page.")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the regions whose report is there; exit with 2 where none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, default=Path("runs/digits/report.json"))
    parser.add_argument("--figures-scenes", type=Path, default=Path("runs/scenes/report.json"))
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the READMEs")
    given = parser.parse_args(arguments)
    reports = {"figures": given.figures, "figures-scenes": given.figures_scenes}
    present = {region: path for region, path in reports.items() if path.is_file()}
    if not present:
        paths = ", ".join(str(path) for path in reports.values())
        sys.stderr.write(f"error: no report at {paths}. Run make demo.\n")
        return 2
    try:
        for language in LANGUAGES:
            file = given.root / language.file
            page = file.read_text(encoding="utf-8")
            for region, path in present.items():
                content = table(read_figures(path), REGIONS[region], language, path.as_posix())
                page = fill(page, region, content)
            file.write_text(page, encoding="utf-8")
    except (KeyError, TypeError, ValueError) as error:
        sys.stderr.write(f"error: {error.args[0]}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
