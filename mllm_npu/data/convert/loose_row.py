"""Loose row: a row of files that share a key, as tars and folders of others hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mllm_npu.data.convert.record_kind import encode_json
from mllm_npu.data.convert.stored_picture import store_picture
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample

_PICTURES = frozenset(
    "jpg jpeg jpe jfif png webp img image bmp gif tif tiff ppm pgm".split()  # noqa: SIM905
)
_PICKLES = frozenset("pkl pickle pyd pth pt".split())  # noqa: SIM905
_STANDS_ALONE = ("text", "messages", "parts")


def is_picture_file(extension: str) -> bool:
    """Whether a file with this extension (``jpg``, ``0.img``) should be a picture."""
    return extension.rpartition(".")[2] in _PICTURES


def is_pickle_file(extension: str) -> bool:
    """Whether a file with this extension may run code when others read it."""
    return extension.rpartition(".")[2] in _PICKLES


def build_row(
    key: str, contents: Sequence[tuple[str, bytes]], class_names: Sequence[str] = ()
) -> Row:
    """Make a row of the files of one key.

    Pictures get the extension that their bytes ask for. A text beside a json goes into it, a class
    becomes a caption where there is no other. All other files are kept as they are.

    Args:
        key: of the row.
        contents: extension and bytes of each file.
        class_names: names of numbered classes.

    Raises:
        SkipSample: if the row holds neither picture nor text, or one that is broken, or a pickle.
    """
    members: dict[str, bytes] = {}
    renamed: dict[str, str] = {}
    for extension, data in contents:
        if is_pickle_file(extension):
            raise SkipSample(f"pickle in the row: {extension}")
        name = extension
        if is_picture_file(extension):
            stored = store_picture(data)
            name, data = _fit_name(extension, stored.extension, members), stored.data
            renamed[extension] = name
        if name in members:
            raise SkipSample(f"two files of one name: {name}")
        members[name] = data
    return Row(key=key, members=_settle_texts(members, renamed, class_names))


def _fit_name(extension: str, fitting: str, taken: dict[str, bytes]) -> str:
    stem, dot, _ = extension.rpartition(".")
    name = f"{stem}{dot}{fitting}"
    return f"{extension}.{fitting}" if name in taken else name


def _settle_texts(
    members: dict[str, bytes], renamed: dict[str, str], class_names: Sequence[str]
) -> dict[str, bytes]:
    """Check the texts and bring caption, text and class to where training looks for them."""
    values = _read_json(members["json"]) if "json" in members else None
    text = _read_text(members["txt"]) if "txt" in members else ""
    if "txt" in members and not text:
        raise SkipSample("caption empty")
    if not text and "cls" in members and not (values or {}).get("caption"):
        text = _class_name(_read_text(members["cls"]), class_names)
        members = {name: data for name, data in members.items() if name != "cls"} | {
            "txt": text.encode()
        }
    if not renamed and not any(name in (values or {}) for name in _STANDS_ALONE):
        raise SkipSample("picture missing")
    if values is None:
        return members
    changed = _rename(values, renamed)
    if text and not changed.get("caption"):
        changed = {**changed, "caption": text}
    if "caption" in changed and not _has_text(changed["caption"]):
        raise SkipSample("caption empty")
    members.pop("txt", None)
    return members if changed == values else {**members, "json": encode_json(changed)}


def _has_text(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return bool(several) and all(isinstance(one, str) and one.strip() for one in several)


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SkipSample("json broken") from error
    if not isinstance(values, dict):
        raise SkipSample("json is not an object")
    return values


def _read_text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError as error:
        raise SkipSample("text is not UTF-8") from error


def _class_name(text: str, class_names: Sequence[str]) -> str:
    if not text:
        raise SkipSample("class empty")
    if not class_names or not text.isdecimal():
        return text
    if int(text) >= len(class_names):
        raise SkipSample(f"class has no name: {text}")
    return class_names[int(text)]


def _rename(value: Any, renamed: dict[str, str]) -> Any:
    """The same value with the new names of the pictures where the row's json refers to them."""
    match value:
        case dict():
            return {
                name: renamed.get(item, item)
                if name in ("image", "source", "target") and isinstance(item, str)
                else _rename(item, renamed)
                for name, item in value.items()
            }
        case list():
            return [_rename(item, renamed) for item in value]
    return value
