"""Keep the weights of a model that answers in fewer bytes: half floats, or int8 by torchao."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mllm_npu.errors import ConfigError

Quantization = Literal["bfloat16", "float16", "int8"]

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_WHOLE = ("image_decoder", "drawn_features")
"""Parts that keep their dtype: an image decoder runs many steps on what it made before."""
_QUANTIZED = ("language_model", "vision_encoder")


def quantize_model(model: nn.Module, way: str) -> nn.Module:
    """Put the weights of a model into fewer bytes, in place; only to answer, not to train.

    - ``bfloat16``, ``float16``: all parts but the image decoder hold and compute in it.
    - ``int8``: matrices of language model and vision encoder are int8 with one scale per row; what
      is computed stays in the dtype it was. The table of words and the head stay whole.

    Args:
        model: a whole model; still on the host, so that the device never holds it whole.
        way: one of the above.

    Returns:
        The model.

    Raises:
        ConfigError: another way, torchao is not installed, or there is nothing to make smaller.
    """
    if way not in get_args(Quantization):
        known = ", ".join(get_args(Quantization))
        raise ConfigError(f"quantize={way!r} was asked for. Give one of {known}.")
    if way in _HALVES:
        _halve(model, _HALVES[way])
    else:
        _quantize_int8(model)
    return model


def weights_bytes(model: nn.Module) -> int:
    """Bytes that parameters and buffers take, each counted once."""
    seen = {id(value): value for value in (*model.parameters(), *model.buffers())}
    return sum(
        plain.numel() * plain.element_size() for value in seen.values() for plain in _plain(value)
    )


def _plain(value: Tensor) -> Iterator[Tensor]:
    """The tensors inside a tensor; most hold themselves alone."""
    if not hasattr(value, "__tensor_flatten__"):
        yield value
        return
    for name in value.__tensor_flatten__()[0]:
        yield from _plain(getattr(value, name))


def _halve(model: nn.Module, dtype: torch.dtype) -> None:
    for name, part in model.named_children():
        if name not in _WHOLE:
            part.to(dtype)
    for parameter in model.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)
    decoder = getattr(model, "image_decoder", None)
    projector = getattr(model, "output_projector", None)
    if projector is not None and decoder is not None:
        kept = next(decoder.parameters()).dtype
        projector.register_forward_hook(lambda _, __, features_GPV: features_GPV.to(kept))


def _quantize_int8(model: nn.Module) -> None:
    torchao = _torchao()
    tables = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    } | {id(head.weight) for head in _heads(model)}
    names = {
        f"{part}.{name}"
        for part in _QUANTIZED
        for name, layer in getattr(model, part, nn.Module()).named_modules()
        if type(layer) is nn.Linear and id(layer.weight) not in tables
    }
    if not names:
        raise ConfigError(
            f"quantize=int8 was asked for; {type(model).__name__} has no linear layers in "
            f"{' or '.join(_QUANTIZED)}. Leave it out."
        )
    with torch.no_grad():
        torchao.quantize_(
            model,
            torchao.Int8WeightOnlyConfig(set_inductor_config=False),
            filter_fn=lambda _, name: name in names,
        )


def _heads(model: nn.Module) -> Iterator[Any]:
    """The layers that score words."""
    for module in model.modules():
        head = getattr(module, "get_output_embeddings", lambda: None)()
        if isinstance(head, nn.Linear):
            yield head


def _torchao() -> Any:
    """The library's module, or why there is none."""
    try:
        with warnings.catch_warnings():
            # It says at import what it would like from compilers that are not used here.
            warnings.simplefilter("ignore")
            return importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise ConfigError(
            f"quantize=int8 was asked for, and torchao cannot be imported ({error}). Install it: "
            "pip install 'mllm-npu[quant]'"
        ) from error
