"""Let training take the model, the processor and the tokenizer of a model folder as they are."""

from __future__ import annotations

from pathlib import Path

from mllm_npu.config import offer_option, plain, read_config
from mllm_npu.model_folder import MODEL_FILE, find_model_folder

OPTION = "of_folder"
"""What the options are called that a folder gives; a run keeps their values, not their name."""


def offer_model(run: Path) -> list[str]:
    """Make the parts of a model folder options of the configuration groups.

    Args:
        run: a run, a stage or a model folder.

    Returns:
        Overrides that choose them, and start from the folder's weights. Further overrides may
        change single values, such as ``models.language_model.dtype=bfloat16``.

    Raises:
        ConfigError: there is no model folder, or its configuration cannot be used.
    """
    folder = find_model_folder(run).resolve()
    config = read_config(folder / MODEL_FILE, "model")
    config.tokenizer.path = str(folder / config.tokenizer.path)
    for name, part in plain(config.models).items():
        # Configuration files that the folder brings along are named relative to it.
        path = part.get("path") if isinstance(part, dict) else None
        if path and (folder / path / "config.json").is_file():
            config.models[name].path = str(folder / path)
    for group in ("models", "processor", "tokenizer"):
        offer_option(group, OPTION, plain(config[group]))
    weights = [str(folder / path) for path in config.weights or ["."]]
    quoted = ",".join(f"'{path}'" for path in weights)
    return [
        f"models={OPTION}",
        f"processor={OPTION}",
        f"tokenizer={OPTION}",
        # Experiments name a tokenizer of their own above the group.
        f"tokenizer.path='{config.tokenizer.path}'",
        f"initialise_from=[{quoted}]",
    ]
