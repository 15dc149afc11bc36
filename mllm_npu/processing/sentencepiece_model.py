"""Read a Llama-style SentencePiece model as a fast tokenizer that gives the very same ids."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError

MODEL_FILE = "tokenizer.model"

PROBES = (
    "The quick brown fox jumps over 13 lazy dogs.",
    "a",
    "\n",
    "hello\nworld\n",
    "one  two   three",
    "tabs\tand (brackets), 3.14 + 2 = 5.14?",
    "Größe, naïve, Ωmega",
    "手書きの数字 你好",
    "🙂🙃",
    "def f(x):\n    return x ** 2\n",
    " leading and trailing ",
    "",
)
"""Texts by which two tokenizers are compared."""

_CONFIG_FILE = "tokenizer_config.json"
_FAMILY = ("LlamaTokenizer", "LlamaTokenizerFast")
_MARK = "\u2581"
_Steps = tuple[dict[str, Any] | None, dict[str, Any] | None]
"""Normalizer and pre-tokenizer, as the tokenizers library describes them."""
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def is_llama_model(folder: Path) -> bool:
    """Whether a folder holds a SentencePiece model, no tokenizer.json, and no other family."""
    if not (folder / MODEL_FILE).is_file() or (folder / "tokenizer.json").is_file():
        return False
    return _settings(folder).get("tokenizer_class", _FAMILY[0]) in _FAMILY


def read_llama_model(folder: Path) -> PreTrainedTokenizerFast:
    """Read ``tokenizer.model`` and the settings and added tokens beside it.

    Spaces are treated as the folder says. ``legacy`` (also where nothing is said, as the released
    models were trained) puts a space in front of every piece of text between added tokens, so that
    a line break by itself is two tokens; without it only the start of a text gets one.

    Args:
        folder: holds ``tokenizer.model``.

    Returns:
        A tokenizer whose ids are those of the sentencepiece library, which is asked for a dozen
        texts. Without ``legacy`` texts that begin with a space may differ by that space.

    Raises:
        ConfigError: the sentencepiece library is missing, or gives other ids.

    Source: SentencePiece (Kudo and Richardson 2018); the spaces of LlamaTokenizer in transformers
        4.40, in which the released SEED-X weights were trained.
    """
    if importlib.util.find_spec("sentencepiece") is None:
        raise ConfigError(
            f"A tokenizer was asked for at {str(folder)!r}, which holds {MODEL_FILE} and no "
            "tokenizer.json; reading it needs the sentencepiece library, which is not installed. "
            "Install it (pip install 'mllm-npu[seedx]'), or give a folder with tokenizer.json."
        )
    from transformers import LlamaTokenizer  # noqa: PLC0415 - slow import

    settings = _settings(folder)
    plain = LlamaTokenizer.from_pretrained(str(folder), local_files_only=True)
    legacy = settings.get("legacy") in (None, True)
    at_start = settings.get("add_prefix_space") is not False
    names = {name: getattr(plain, name) for name in _NAMED if getattr(plain, name) is not None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=mark_spaces(plain.backend_tokenizer, legacy=legacy, at_start=at_start),
        clean_up_tokenization_spaces=False,
        model_max_length=plain.model_max_length,
        chat_template=plain.chat_template,
        **names,
    )
    if legacy:
        _require_same_ids(tokenizer, folder / MODEL_FILE)
    return tokenizer


def mark_spaces(backend: Tokenizer, *, legacy: bool, at_start: bool) -> Tokenizer:
    """The same tokenizer with its spaces turned into marks the way SentencePiece does.

    Args:
        backend: knows the mark (U+2581) as a letter; it is not changed.
        legacy: put a mark in front of every piece of text between added tokens.
        at_start: without ``legacy``, whether the start of a text gets one.
    """
    described = json.loads(backend.to_str())
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
    prepend = {"type": "Prepend", "prepend": _MARK}
    first = {"type": "Metaspace", "replacement": _MARK, "prepend_scheme": "first", "split": False}
    if legacy:
        spaces: _Steps = {"type": "Sequence", "normalizers": [prepend, replace]}, None
    else:
        spaces = (None, first) if at_start else (replace, None)
    described["normalizer"], described["pre_tokenizer"] = spaces
    for token in described["added_tokens"]:
        # Otherwise the mark in front of a text becomes part of the token's own spelling.
        token["normalized"] = False
    return Tokenizer.from_str(json.dumps(described))


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG_FILE
    values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return values if isinstance(values, dict) else {}


def _require_same_ids(tokenizer: PreTrainedTokenizerFast, model: Path) -> None:
    truth = importlib.import_module("sentencepiece").SentencePieceProcessor(model_file=str(model))
    for text in PROBES:
        ours, theirs = tokenizer.encode(text, add_special_tokens=False), truth.encode(text)
        if ours != theirs:
            raise ConfigError(
                f"{model} cannot be read exactly: {text!r} should be the ids {theirs} and would be "
                f"{ours}. Save the tokenizer as tokenizer.json with the program it comes from, and "
                "give that folder."
            )
