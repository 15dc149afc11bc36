"""Save, load and share our own models: folders that the Hugging Face Hub can hold.

from mllm_npu.zoo.pretrained import from_pretrained

model = from_pretrained("digits")
print(model.ask("Which digit is this?", [picture]).text)
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from PIL import Image

from mllm_npu.build import build_part
from mllm_npu.config import Config, plain, read_config, write_config
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.hub_cache import cached_snapshot, is_hub_id, part_folder
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import (
    MODEL_FILE,
    find_model_folder,
    list_model_files,
    load_engine,
    load_model,
    save_model_folder,
)
from mllm_npu.processing.conversation import ask
from mllm_npu.shipped import SHIPPED_FOLDER, resolve_run, shipped_names
from mllm_npu.zoo.card import find_card
from mllm_npu.zoo.card_check import check_folder
from mllm_npu.zoo.model_card import CARD_FILE, CardFacts, write_model_card
from mllm_npu.zoo.model_card_facts import CardFigure, RunFacts, read_run

_BROUGHT = "parts"
"""Where a folder that travels keeps the configuration files of its parts."""
_IGNORED = ["*.partial", "*.tmp", ".cache/*"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A model that is ready to answer.

    Args:
        engine: answers; has stream, reply and reply_many for conversations.
        options: how it answers, as its folder says.
        config: its model.yaml.
        folder: it was read from.
    """

    engine: Engine
    options: GenerationOptions
    config: Config
    folder: Path

    def ask(self, prompt: str, pictures: Sequence[Image.Image] = (), **options: Any) -> Reply:
        """Answer one question.

        Args:
            prompt: the text.
            pictures: RGB, of any size.
            options: of `GenerationOptions`, in place of those of the folder.

        Raises:
            RequestError: it cannot be answered as it was put.
        """
        wished = dataclasses.replace(self.options, **options)
        return self.engine.reply(ask(prompt, list(pictures)), wished)


def from_pretrained(
    name: str | Path,
    *,
    device: str = "auto",
    quantize: str | None = None,
    revision: str | None = None,
    allow_download: bool = False,
) -> Pretrained:
    """Load a model by folder, by the name of a shipped one, or by its id on the Hub.

    Args:
        name: a folder of a run, a stage or a model; a name as ``digits``; or OWNER/NAME.
        device: where it runs.
        quantize: bfloat16, float16 or int8 keeps its weights in fewer bytes.
        revision: of a model on the Hub.
        allow_download: whether a model of the Hub that is not in the local cache is fetched.

    Raises:
        ConfigError: there is no such model, or its configuration cannot be used.
        WeightsError: its weights do not fit, or a shipped one is damaged.
    """
    folder = find_pretrained(name, revision=revision, allow_download=allow_download)
    engine, config = load_engine(folder, device, quantize=quantize)
    options: GenerationOptions = build_part(config.generation)
    return Pretrained(engine=engine, options=options, config=config, folder=folder)


def find_pretrained(
    name: str | Path, *, revision: str | None = None, allow_download: bool = False
) -> Path:
    """The model folder behind a name; see `from_pretrained`.

    Raises:
        ConfigError: there is none.
        WeightsError: a shipped one is damaged.
    """
    run = Path(name).expanduser()
    if run.exists():
        return find_model_folder(run)
    if str(name) in shipped_names():
        check_folder(find_card(str(name)), SHIPPED_FOLDER / run)
        return SHIPPED_FOLDER / run
    if not is_hub_id(str(name)):
        raise ConfigError(
            f"{name} was asked for; it is no folder, no model of the package "
            f"({', '.join(shipped_names())}) and no OWNER/NAME of the Hub."
        )
    snapshot = cached_snapshot(str(name), revision=revision)
    if snapshot is None and allow_download:
        snapshot = _download(str(name), revision)
    if snapshot is None:
        raise ConfigError(
            f"{name} was asked for; there is no such folder, and no such model in the cache of the "
            f"Hub on this machine. Get it: hf download {name}, or give allow_download=True."
        )
    return find_model_folder(snapshot)


def save_pretrained(run: str | Path, out: Path, *, facts: CardFacts | None = None) -> Path:
    """Write the model of a run as a folder that travels, with a model card made from the run.

    The folder holds weights, tokenizer, configuration and pictures, and names no other place;
    every command takes it, and so does `from_pretrained`.

    Args:
        run: folder of a run, a stage or a model, or the name of a shipped one.
        out: folder to write; not there yet.
        facts: what the run cannot know: licence, base models, title.

    Returns:
        ``out``.

    Raises:
        ConfigError: there is no such model, or ``out`` is there already.
        WeightsError: it cannot be read or written.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already. Give a folder that is not.")
    source = find_model_folder(Path(run))
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _write_model(source, partial)
        described = read_config(partial / MODEL_FILE, "model")
        _bring_parts(described, partial)
        if described.world_dir is not None:
            described.world_dir = f"data/{Path(described.world_dir).name}"
        write_config(described, partial / MODEL_FILE)
        facts = facts or CardFacts()
        write_model_card(partial, _run_facts(Path(run), source), facts)
        partial.rename(out)
    except OSError as error:
        raise WeightsError(f"{out} cannot be written: {error}. Make room on its disk.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def push_to_hub(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    message: str = "Upload a mllm-npu model",
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Put a folder that `save_pretrained` has written on the Hugging Face Hub.

    Args:
        folder: to upload.
        repo_id: OWNER/NAME; the repository is made where there is none.
        private: who sees a repository that is made.
        message: of the commit.
        token: of the Hub; None takes the one that ``hf auth login`` has stored.
        revision: branch to write to; None means main.

    Returns:
        Address of the commit.

    Raises:
        ConfigError: the folder cannot be shared, the name is none, or the Hub refuses.
    """
    _refuse_unshareable(folder)
    if not is_hub_id(repo_id):
        raise ConfigError(f"{repo_id!r} is no name on the Hub. Give OWNER/NAME.")
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            ignore_patterns=_IGNORED,
        )
    except Exception as error:
        # The Hub's library and the client below it have their own trees of errors.
        raise ConfigError(
            f"The Hub did not take {folder} as {repo_id}: {_one_line(error)}. It must be in reach, "
            "and know you by a token that may write: hf auth login"
        ) from error
    return str(done.commit_url)


def _write_model(source: Path, out: Path) -> None:
    config = read_config(source / MODEL_FILE, "model")
    if config.weights:
        model, _, config = load_model(source)
        save_model_folder(model, config, out)
        return
    shutil.copytree(
        source / config.tokenizer.path, out / "tokenizer", copy_function=shutil.copyfile
    )
    config.tokenizer.path = str(source / config.tokenizer.path)
    for file in list_model_files(source, config):
        if file.is_file():
            shutil.copyfile(file, out / file.name)
    described = read_config(out / MODEL_FILE, "model")
    described.tokenizer.path = "tokenizer"
    write_config(described, out / MODEL_FILE)


def _bring_parts(config: Config, out: Path) -> None:
    """Copy the configuration files of parts that are described by folders, and name the copies."""
    for name, part in plain(config.models).items():
        path = part.get("path") if isinstance(part, dict) else None
        file = part_folder(path) / "config.json" if path else None
        if file is not None and file.is_file():
            brought = Path(_BROUGHT) / str(name)
            (out / brought).mkdir(parents=True)
            shutil.copyfile(file, out / brought / file.name)
            config.models[name].path = brought.as_posix()


def _run_facts(run: Path, source: Path) -> RunFacts:
    """What is known of a run; of a shipped model, what its card says."""
    if resolve_run(run) == run:
        return read_run(run, source)
    card = find_card(str(run))
    figures = [
        CardFigure(name=entry.what, title=entry.what, value=entry.value, citation=entry.by)
        for entry in card.quality
        if isinstance(entry.value, float)
    ]
    return RunFacts(figures=tuple(figures), world=card.family)


def _refuse_unshareable(folder: Path) -> None:
    """Refuse a folder that would be of no use to others, or tell them of this machine."""
    missing = [name for name in (MODEL_FILE, CARD_FILE) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder} has no {' and no '.join(missing)}. Write it first: mllm-npu zoo save"
        )
    config = read_config(folder / MODEL_FILE, "model")
    named = [*(config.weights or ()), config.tokenizer.path, config.world_dir or ""]
    if config.weights or any(Path(str(path)).is_absolute() for path in named):
        raise ConfigError(
            f"{folder} refers to files elsewhere on this machine. Write it as one that travels: "
            "mllm-npu zoo save"
        )


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(hub_id, revision=revision))
    except Exception as error:
        # The Hub's library and the client below it have their own trees of errors.
        raise ConfigError(
            f"{hub_id} cannot be got from the Hub: {_one_line(error)}. Where another machine "
            f"reaches it: hf download {hub_id} --local-dir FOLDER, and bring that folder."
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
