"""Make a model folder of a released LLaVA model, so that every command takes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllm_npu.config import Config, load_config, read_config, write_config
from mllm_npu.errors import ConfigError
from mllm_npu.model_folder import MODEL_FILE, import_model
from mllm_npu.processing.tokenizer import load_tokenizer
from mllm_npu.zoo.hub_folder import HubFolder, open_hub_folder
from mllm_npu.zoo.llava_chat import chat_values, recognise_format
from mllm_npu.zoo.llava_family import LlavaValues, read_family, require_family

TOKENIZER_FOLDER = "tokenizer"
"""Where a model folder keeps its tokenizer, and beside it every small file of the Hub's folder.

Training copies the tokenizer on from stage to stage, so what an export needs travels with it.
"""


def import_llava(
    path: Path | str,
    out: Path,
    *,
    copy: bool = False,
    dtype: str | None = None,
    chat_format: str | None = None,
    hashes: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Import a folder in the layout of the Hub.

    Args:
        path: the folder, or OWNER/NAME of a model in the local cache of the Hub.
        out: model folder to write; not there yet.
        copy: write the values into it; else it says where they are.
        dtype: of the parameters; None keeps that of the files.
        chat_format: one of `CHAT_FORMATS`; None recognises it.
        hashes: compare the content of the files with the hashes their download has noted.
        say: is told in one line what is done.

    Raises:
        ConfigError: an unknown family or setting, or ``out`` is there already.
        WeightsError: weights that are missing, cut off, changed, or of another model.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already. Give a folder that is not.")
    hub = open_hub_folder(path, hashes=hashes, say=say)
    require_family(hub)
    values = read_family(hub, dtype=dtype)
    named = chat_format or recognise_format(hub)
    say(f"{hub.model_type}, conversations as {named}")
    partial = out.with_name(f"{out.name}.partial-import")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        hub.copy_side_files(partial / TOKENIZER_FOLDER)
        config = _compose(hub, values, partial / TOKENIZER_FOLDER, out.name, named)
        import_model(config, out, copy=copy, say=say)
        if not copy:
            _bring_tokenizer(partial / TOKENIZER_FOLDER, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _compose(
    hub: HubFolder, values: LlavaValues, tokenizer: Path, name: str, chat_format: str
) -> Config:
    """The configuration of the model folder."""
    config = load_config(
        "model",
        ["models=mllm_tiny", "world_dir=null", f"name='{name}'", f"tokenizer.path='{tokenizer}'"],
    )
    config.models = values.models
    config.processor = _processor(hub, values, tokenizer, chat_format)
    config.weights = [str(hub.path)]
    return config


def _processor(
    hub: HubFolder, values: LlavaValues, tokenizer: Path, chat_format: str
) -> dict[str, Any]:
    known = load_tokenizer(path=str(tokenizer))
    spelling = known.convert_ids_to_tokens(values.image_token_id)
    if not spelling or known.get_vocab().get(spelling) != values.image_token_id:
        raise ConfigError(
            f"{hub.path}: image_token_index={values.image_token_id} is no token of its tokenizer "
            f"({len(known)} tokens). The files are of different releases; get them again."
        )
    return {
        "_target_": "mllm_npu.processing.processor.Processor",
        "any_resolution": values.tiling,
        "chat_template": chat_values(hub, chat_format),
        "num_read_tokens": values.num_read_tokens,
        "num_drawn_tokens": 0,
        "max_tokens": values.max_tokens,
        "image_token": str(spelling),
        "join_texts": True,
    }


def _bring_tokenizer(tokenizer: Path, out: Path) -> None:
    """Move the copied tokenizer into the model folder, which then names its own."""
    tokenizer.rename(out / TOKENIZER_FOLDER)
    described = read_config(out / MODEL_FILE, "model")
    described.tokenizer.path = TOKENIZER_FOLDER
    write_config(described, out / MODEL_FILE)
