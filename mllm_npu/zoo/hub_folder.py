"""Open a model folder in the layout of the Hugging Face Hub, and refuse half a download."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.hub_cache import cached_snapshot, download_advice, is_hub_id
from mllm_npu.zoo.card_check import hash_file, safetensors_size

CONFIG_FILE = "config.json"
_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".onnx")
_METADATA = Path(".cache") / "huggingface" / "download"
_HASH_LENGTH = 64
_POINTER = b"version https://git-lfs"
_LARGEST_SIDE_FILE = 64 * 2**20
"""Files beside the weights are small: the largest tokenizer has 35 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFolder:
    """A model as the Hub keeps it: config.json, weights, tokenizer, processor.

    Args:
        path: of the folder.
        config: values of config.json.
        shards: files of the weights.
    """

    path: Path
    config: dict[str, Any]
    shards: tuple[Path, ...]

    @property
    def model_type(self) -> str:
        """The family, as config.json names it."""
        return str(self.config.get("model_type"))

    def read_json(self, name: str) -> dict[str, Any]:
        """Values of a file of the folder; none where it is not there.

        Raises:
            ConfigError: it is no JSON of keys and values.
        """
        return _read_json(self.path / name) if (self.path / name).is_file() else {}

    def read_text(self, name: str) -> str:
        """A file of the folder; empty where it is not there."""
        file = self.path / name
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def copy_side_files(self, target: Path) -> None:
        """Copy everything beside the weights: configurations, tokenizer, templates.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted(self.path.iterdir()):
                if is_side_file(file):
                    # The content, where the cache of the Hub has a link.
                    shutil.copyfile(file, target / file.name)
        except OSError as error:
            raise ConfigError(
                f"The tokenizer cannot be copied to {target}: {error}. Choose a folder that can "
                "be written, on a disk with room."
            ) from error


def open_hub_folder(
    path: Path | str, *, hashes: bool = True, say: Callable[[str], None] = lambda _: None
) -> HubFolder:
    """Open a folder and see that its weights are whole.

    Args:
        path: a folder, or OWNER/NAME of a model in the local cache of the Hub.
        hashes: compare the content of files with the hashes that whoever downloaded them has left
            beside them: the command ``hf download`` does.
        say: is told in one line what is compared.

    Raises:
        ConfigError: no such folder, or no config.json that can be read.
        WeightsError: weights are missing, cut off, or of another content.
    """
    folder = _find(path)
    config_file = folder / CONFIG_FILE
    if not config_file.is_file():
        raise ConfigError(
            f"{folder} holds no {CONFIG_FILE}, so it is no model of the Hugging Face Hub. Give the "
            "folder that the download has made, with config.json, weights and tokenizer in it."
        )
    config = _read_json(config_file)
    half = sorted(folder.rglob("*.incomplete"))
    if half:
        raise WeightsError(
            f"{folder} holds half a download: {half[0].relative_to(folder)} ({len(half)} such "
            "files). The command that began it goes on with it."
        )
    shards = _find_shards(folder)
    for shard in shards:
        _check_length(shard)
    if hashes:
        _check_hashes(shards, folder, say)
    return HubFolder(path=folder, config=config, shards=shards)


def _find(path: Path | str) -> Path:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    found = cached_snapshot(str(path)) if is_hub_id(str(path)) else None
    if found is None:
        raise ConfigError(
            f"{path} was to be imported; there is no such folder.{download_advice(str(path))}"
        )
    return found


def _find_shards(folder: Path) -> tuple[Path, ...]:
    """Safetensors of a folder, those that its index names where it has one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        found = tuple(sorted(folder.glob("*.safetensors")))
        if not found:
            held = sorted(file.name for file in folder.iterdir() if file.suffix in _WEIGHT_ENDINGS)
            kind = f" It holds {', '.join(held[:4])}: save it as safetensors." if held else ""
            raise WeightsError(
                f"{folder} holds no weights (*.safetensors). The download is not complete.{kind}"
            )
        return found
    try:
        names = sorted(set(_read_json(index)["weight_map"].values()))
    except (KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} names no shards: {error}. Get it again.") from error
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking:
        raise WeightsError(
            f"{folder} lacks {len(lacking)} of {len(names)} shards that its index names: "
            f"{', '.join(lacking[:4])}. The download is not complete; get them."
        )
    return tuple(folder / name for name in names)


def _check_length(shard: Path) -> None:
    size, stated = shard.stat().st_size, safetensors_size(shard)
    if stated is None:
        with shard.open("rb") as file:
            is_pointer = file.read(len(_POINTER)) == _POINTER
        what = "a pointer of git-lfs, not the file: git lfs pull"
        if not is_pointer:
            what = "cut off in its header, or no safetensors. Get it again"
        raise WeightsError(f"{shard} of {size} bytes is {what}.")
    if size != stated:
        what = "It was cut off" if size < stated else "Something was added to it"
        raise WeightsError(
            f"{shard} has {size} bytes, its header says {stated}. {what}; get it again."
        )


def _check_hashes(shards: tuple[Path, ...], folder: Path, say: Callable[[str], None]) -> None:
    known = {shard: wanted for shard in shards if (wanted := _known_hash(shard, folder))}
    if known:
        gigabytes = sum(shard.stat().st_size for shard in known) / 1e9
        say(f"comparing the hashes of {len(known)} files, {gigabytes:.1f} GB")
    for shard, wanted in known.items():
        found = hash_file(shard)
        if found != wanted:
            raise WeightsError(
                f"{shard} is of the right size, and its content is another: its SHA-256 is "
                f"{found}, the Hub has {wanted}. Delete it and get it again."
            )


def _known_hash(shard: Path, folder: Path) -> str | None:
    """SHA-256 that the download has noted: in the name of a blob, or in a file beside."""
    if shard.is_symlink() and _is_hash(shard.resolve().name):
        return shard.resolve().name
    noted = folder / _METADATA / f"{shard.name}.metadata"
    if not noted.is_file():
        return None
    lines = noted.read_text(encoding="utf-8").splitlines()
    return lines[1].strip() if len(lines) > 1 and _is_hash(lines[1].strip()) else None


def _is_hash(text: str) -> bool:
    return len(text) == _HASH_LENGTH and set(text) <= set("0123456789abcdef")


def is_side_file(file: Path) -> bool:
    """Whether a file of a folder is a configuration, a template or of the tokenizer."""
    is_weights = file.suffix in _WEIGHT_ENDINGS or file.name.endswith(".index.json")
    is_small = file.is_file() and file.stat().st_size <= _LARGEST_SIDE_FILE
    return is_small and not is_weights and file.suffix != ".py" and not file.name.startswith(".")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Get it again.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds no keys and values. Get it again.")
    return values
