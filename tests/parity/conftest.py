"""Vectors recorded from the original system, and how far we are from them.

``golden(name)`` reads a file: tensors by key, and its meta data. ``take(tensors, prefix)`` cuts a
prefix off keys. ``deviation(name, found, expected, atol=..., rtol=...)`` compares and keeps the
largest difference; a line per file is printed when all tests are done, also under several workers.
Every module names the files it is about in ``GOLDEN``.
"""

import json
import shutil
from collections import defaultdict
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from mllm_npu.models.drawing import Detokenizer
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.image_decoder.resampler import ResamplerXLV2
from mllm_npu.models.vision_encoder.qwen_vit import QwenVisionEncoder
from mllm_npu.processing.tokenizer import load_tokenizer

_KEY = "parity"


@pytest.fixture(scope="session")
def golden(shared):
    """Read one recorded file: tensors by key (none where it has none), and its meta data."""

    def read(name):
        folder = shared / "golden"
        tensors = folder / f"{name}.safetensors"
        values = json.loads((folder / f"{name}.json").read_text())
        return load_file(tensors) if tensors.exists() else {}, values.get("meta", values)

    return read


@pytest.fixture(scope="session")
def take():
    """Cut a prefix off the keys of recorded tensors; other keys are left out."""

    def cut(tensors, prefix):
        return {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }

    return cut


@pytest.fixture
def deviation(record_property):
    """Compare with what was recorded, and remember how far it was."""

    def compare(name, found, expected, *, atol=1e-5, rtol=0.0, what=""):
        found, expected = (
            torch.as_tensor(value, dtype=torch.float64) for value in (found, expected)
        )
        assert found.shape == expected.shape, what
        assert expected.numel(), f"{name} {what}: nothing is compared"
        largest, scale = (found - expected).abs().max().item(), expected.abs().max().item()
        relative, allowed = largest / scale if scale > atol else 0.0, atol + rtol * scale
        record_property(_KEY, [name, largest, relative, allowed])
        assert largest <= allowed, f"{name} {what}: off by {largest}, scale {scale}"

    return compare


def pytest_terminal_summary(terminalreporter):
    """One line per recorded file; the tolerance is that of its largest deviation."""
    found = defaultdict(list)
    for reports in terminalreporter.stats.values():
        for report in reports:
            # Set-up and tear-down of a test report its properties once more.
            if getattr(report, "when", None) == "call":
                for key, value in report.user_properties:
                    if key == _KEY:
                        found[value[0]].append(value[1:])
    if not found:
        return
    terminalreporter.section("largest deviation from the recorded vectors")
    for name, values in sorted(found.items()):
        largest, _, allowed = max(values)
        relative = max(value[1] for value in values)
        terminalreporter.line(
            f"{name:32} {len(values):4} comparisons   {largest:8.2e} absolute "
            f"(tolerance {allowed:8.2e})   {relative:8.2e} of the largest value"
        )


def _vision_encoder(vit):
    return QwenVisionEncoder(
        tile_size=vit["image_size"],
        patch_size=vit["patch_size"],
        hidden_width=vit["width"],
        num_layers=vit["layers"],
        num_heads=vit["heads"],
        mlp_ratio=vit["mlp_ratio"],
        width=vit["output_dim"],
        num_tokens=vit["n_queries"],
        patch_positions=vit.get("patch_pos", False),
    )


@pytest.fixture(scope="session")
def vision_encoder():
    """Build a Qwen-VL encoder from recorded arguments."""
    return _vision_encoder


@pytest.fixture
def detokenizer(golden, take):
    """Build the recorded de-tokenizer of our parts; ``more`` weights come last."""
    tensors, meta = golden("e2_sdxl_adapter")
    config = meta["cfg"]

    def build(kind, more=None):
        decoder = kind(
            width=config["vit"]["output_dim"],
            num_tokens=16,
            picture_size=128,
            resampler=ResamplerXLV2(**config["resampler"]),
            unet=config["unet"],
            vae=config["vae"],
            scheduler={"name": "EulerDiscreteScheduler", **config["scheduler"]},
        )
        model = Detokenizer(
            vision_encoder=_vision_encoder(config["vit"]),
            image_decoder=decoder,
            drawn_features=DrawnFeatures(
                width=config["vit"]["output_dim"],
                num_tokens=16,
                normalize=False,
                pooling="sequence",
            ),
        )
        model.vision_encoder.load_state_dict(take(tensors, "w.vit."))
        weights = take(tensors, "w.") | (more or {})
        decoder.load_state_dict({k: v for k, v in weights.items() if not k.startswith("vit.")})
        return model.eval()

    return build


@pytest.fixture(scope="session")
def golden_tokenizer(shared, tmp_path_factory):
    """Tokenizers of the recorded layouts by name: bpe, sp_legacy, sp_nonlegacy."""
    folder = shared / "golden"

    @cache
    def load(name):
        if name == "bpe":
            return load_tokenizer(path=str(folder / "tok_bpe"))
        pytest.importorskip("sentencepiece", reason="the sentencepiece library is not installed")
        copy = tmp_path_factory.mktemp(name) / "tokenizer"
        shutil.copytree(folder / "tok_sp", copy)
        settings = json.loads((copy / "tokenizer_config.json").read_text())
        settings["legacy"] = settings["add_prefix_space"] = name == "sp_legacy"
        (copy / "tokenizer_config.json").write_text(json.dumps(settings))
        return load_tokenizer(path=str(copy))

    return load
