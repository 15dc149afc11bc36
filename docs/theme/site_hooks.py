"""What the site needs beyond its plugins: pages of other files, a search for each language.

A page whose front matter names a `source` shows that file of the project, such as CONTRIBUTING.md,
under the page's own title, with its links led to the pages of the site. Both languages are built
into one search index, which is taken apart here, so that a search finds pages of the language that
is read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OTHER = "zh"
"""The language that lies in a folder of the site; the other one is its root."""
INDEX = Path("search/search_index.json")
SHOWN = {
    "data/data.md": "formats.md",
    "data/data_zh.md": "formats.md",
    "CONTRIBUTING.md": "contributing.md",
    "CONTRIBUTING_ZH.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files outside of docs, and the pages that show them in each language."""

_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")
_LANGUAGES = re.compile(r"^(\[(English|中文)\]\([^)]*\)( \| )?)+\n", re.MULTILINE)
"""A line that leads from one language to the other; the site has a switch."""
_MARKED = re.compile(r"^(```\w+) .*", re.MULTILINE)
"""The beginning of a block that a test looks for by a word behind its language."""
_BASE = re.compile(r'("base": ")([^"]*)(")')


def on_files(files: Any, *, config: Any, **_: Any) -> Any:
    """Forget where names of the API stand in the language that was built before."""
    references = config.plugins["autorefs"]
    for known in (references._primary_url_map, references._secondary_url_map):
        known.clear()
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Show the file that a page names as its source; lead links out of docs to pages."""
    own = DOCS / page.file.src_uri
    source = page.meta.get("source")
    if source is None:
        return relink(markdown, origin=own, page=own)
    text = (ROOT / source).read_text(encoding="utf-8")
    text = _MARKED.sub(r"\1", _LANGUAGES.sub("", text))
    text = re.sub(r"\A# .*", f"# {page.meta['title']}", text)
    return relink(text, origin=ROOT / source, page=own)


def relink(markdown: str, *, origin: Path, page: Path) -> str:
    """The same text with the links of one file as they are from a page.

    Args:
        markdown: what is shown.
        origin: file in which it stands.
        page: file of docs that shows it.

    Raises:
        PluginError: a link leads to a file that no page shows.
    """

    def lead(match: re.Match[str]) -> str:
        link, anchor = match.groups()
        if "://" in link or link.startswith("mailto:"):
            return match.group(0)
        target = Path(os.path.normpath(origin.parent / link))
        name = target.relative_to(ROOT).as_posix()
        if name in SHOWN:
            target = DOCS / page.relative_to(DOCS).parts[0] / SHOWN[name]
        elif DOCS not in target.parents:
            raise PluginError(f"{origin}: {link} is no part of the site; show it by a page")
        return f"]({Path(os.path.relpath(target, page.parent)).as_posix()}{anchor})"

    pieces = _FENCE.split(markdown)
    return "".join(piece if piece.startswith("```") else _LINK.sub(lead, piece) for piece in pieces)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Let pages of the other language search in the index of their own folder."""
    if not page.url.startswith(f"{OTHER}/"):
        return output

    def move(found: re.Match[str]) -> str:
        begin, base, end = found.groups()
        return f"{begin}{base.rstrip('/')}/{OTHER}/{end}"

    return _BASE.sub(move, output, count=1)


def on_post_build(*, config: Mapping[str, Any], **_: Any) -> None:
    """Take the search index apart by language; called again after each language."""
    site = Path(config["site_dir"])
    if not (site / INDEX).is_file():
        return
    index = json.loads((site / INDEX).read_text(encoding="utf-8"))
    prefix = f"{OTHER}/"
    others = [each for each in index["docs"] if each["location"].startswith(prefix)]
    if not others:
        return
    own = [each for each in index["docs"] if not each["location"].startswith(prefix)]
    moved = [each | {"location": each["location"].removeprefix(prefix)} for each in others]
    _write(site / INDEX, index | {"docs": own, "config": index["config"] | {"lang": ["en"]}})
    _write(site / OTHER / INDEX, index | {"docs": moved})
    shutil.copy(site / "sitemap.xml", site / OTHER)


on_post_build.mkdocs_priority = -200  # type: ignore[attr-defined]


def _write(path: Path, index: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
