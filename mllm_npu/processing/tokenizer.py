"""Load a tokenizer from a local folder, or train a small byte-level one on a list of texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError
from mllm_npu.processing.sentencepiece_model import is_llama_model, read_llama_model

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
"""The three control tokens of a tokenizer that is trained here; their ids are 0, 1 and 2."""

_SMALLEST_VOCABULARY = 256 + 3


def load_tokenizer(*, path: str) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer from a folder on this machine; nothing is ever downloaded.

    Args:
        path: folder with ``tokenizer.json``, or with a SentencePiece model if its library is there.

    Returns:
        The tokenizer as ``tokenizer.json`` describes it, or one with the ids of the SentencePiece
        model.

    Raises:
        ConfigError: The folder is missing, is no tokenizer, or the tokenizer has no fast form
            or no end-of-text token.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"A tokenizer was asked for at {path!r}, there is no such folder. "
            "Give a local folder that holds tokenizer.json."
        )
    try:
        tokenizer = _read(folder)
    except ConfigError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception on a broken file
        cause = " ".join(str(error).split())
        raise ConfigError(
            f"A tokenizer was asked for at {path!r}, its files cannot be read ({cause}). "
            "Give a folder that save_pretrained has written, with tokenizer.json."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"A fast tokenizer was asked for at {path!r}, the folder holds a slow one "
            f"({type(tokenizer).__name__}). Save it again as tokenizer.json."
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"The tokenizer at {path!r} has no end-of-text token, so no answer could ever end. "
            "Set eos_token in its tokenizer_config.json."
        )
    return tokenizer


def _read(folder: Path) -> PreTrainedTokenizerFast:
    if is_llama_model(folder):
        return read_llama_model(folder)
    loader = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    return loader.from_pretrained(str(folder), local_files_only=True)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; every text can be written in it, digits stand alone.

    Args:
        texts: training texts; the same texts in the same order give the same tokenizer.
        vocab_size: number of tokens wanted, control tokens included; few texts may give fewer.

    Returns:
        A tokenizer with pad, begin and end tokens and without image tokens.

    Raises:
        ConfigError: vocab_size cannot hold the 256 bytes and the control tokens.
    """
    if vocab_size < _SMALLEST_VOCABULARY:
        raise ConfigError(
            f"A tokenizer of {vocab_size} tokens was asked for, 256 bytes and 3 control tokens "
            f"need {_SMALLEST_VOCABULARY}. Raise vocab_size."
        )
    tokenizer = Tokenizer(models.BPE())
    # Single digits: a strip such as "407" is read digit by digit, and sums generalise.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )
