"""Find what was downloaded from the Hugging Face Hub on this machine; nothing is fetched."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a text has the form OWNER/NAME, which a relative path may have too."""
    return _HUB_ID.fullmatch(name) is not None


def cached_snapshot(hub_id: str, *, revision: str | None = None) -> Path | None:
    """Folder of a model in the local cache of the Hub (``HF_HOME``); None where it has none.

    Args:
        hub_id: OWNER/NAME.
        revision: branch, tag or commit; None means main.
    """
    if not is_hub_id(hub_id):
        return None
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        return Path(hub.snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None


def part_folder(path: str) -> Path:
    """The folder that a part's ``path`` means: one on the disk, else one in the cache of the Hub.

    Args:
        path: a folder, or OWNER/NAME of a model on the Hub.

    Returns:
        A folder; ``path`` as it is where there is neither.
    """
    folder = Path(path).expanduser()
    if folder.exists():
        return folder
    return cached_snapshot(path) or folder


def download_advice(path: str) -> str:
    """How to get a model that is not here; empty where the name can be none of the Hub."""
    if not is_hub_id(path):
        return ""
    cache = importlib.import_module("huggingface_hub.constants").HF_HUB_CACHE
    return (
        f" Where it is a model of the Hub, it is not in its cache ({cache}): hf download {path}, "
        f"or hf download {path} --local-dir FOLDER and give that folder."
    )
