"""The original's pre-training scripts start a run, here of small models in the same folders."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

from mllm_npu.cli import main
from mllm_npu.models.vision_encoder.qwen_vit import QwenVisionEncoder
from mllm_npu.processing.tokenizer import load_tokenizer

FEW = [
    "train.max_steps=2",
    "train.accumulate=1",
    "train.log_every=1",
    "tracker=[jsonl]",
    "dataset.tokens_per_pack=300",
    "dataset.num_workers=0",
    "dataset.sources.0.shards=shards/*.tar",
    "dataset.sources.0.task.min_resolution=8",
    "dataset.sources.1.shards=shards/*.tar",
    "dataset.sources.1.weight=0.0",
    "models.projector.num_queries=16",
    "models.projector.num_heads=4",
    "models.language_model.dtype=float32",
    "lora.rank=2",
    "threads=1",
]
SIGLIP = ["models.language_model.vocab_size=330"]
QWEN = [
    *SIGLIP,
    "models.output_projector.num_queries=16",
    "models.output_projector.num_heads=4",
    "models.vision_encoder.tile_size=28",
    "models.vision_encoder.hidden_width=32",
    "models.vision_encoder.num_layers=1",
    "models.vision_encoder.num_heads=4",
    "models.vision_encoder.mlp_ratio=2.0",
    "models.vision_encoder.width=128",
    "models.vision_encoder.num_tokens=16",
    "models.vision_encoder.dtype=float32",
]


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder with everything the scripts look for, small."""
    root = tmp_path_factory.mktemp("place")
    pretrained, photos = root / "pretrained", root / "photos"
    for name in ("llama2", "llama3"):
        shutil.copytree(
            world / "tokenizer", pretrained / f"cvlm_{name}_tokenizer_100img_and_224loc_addpatch"
        )
        sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
        config = LlamaConfig(
            vocab_size=len(load_tokenizer(path=str(world / "tokenizer"))) - 20,
            num_attention_heads=4,
            **sizes,
        )
        LlamaForCausalLM(config).save_pretrained(pretrained / name)
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    SiglipVisionModel(vision).save_pretrained(pretrained / "siglip-so400m-patch14-384")
    encoder = QwenVisionEncoder(
        tile_size=28,
        hidden_width=32,
        num_layers=1,
        num_heads=4,
        mlp_ratio=2.0,
        width=128,
        num_tokens=16,
    )
    torch.save(encoder.state_dict(), pretrained / "qwen_vit_G.pt")
    photos.mkdir()
    for number in range(8):
        Image.new("RGB", (40, 30), (number * 30, 90, 90)).save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text("draw a seven")
    assert main(["data", "pictures", str(photos), "--out", str(root / "shards")]) == 0
    return root


def start(script, place, overrides):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", script, *overrides],
        cwd=place,
        env={**os.environ, "PATH": path, "NPROC": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "name", "overrides"),
    [
        ("mllm_llama3_8b_siglip_vit_pretrain.sh", "mllm_llama3_8b_siglip_vit", SIGLIP),
        ("seed-x_llama2_13b_qwen_vit_pretrain.sh", "seedx", QWEN),
    ],
)
def test_a_script_trains(root, place, script, name, overrides):
    done = start(root / "scripts" / script, place, [*FEW, *overrides])
    assert done.returncode == 0, done.stderr[-2000:]
    run = place / "runs" / name / "pretrain"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    saved = (run / "model" / "model.yaml").read_text()
    assert "lora: null" in saved


def test_a_script_without_its_files_says_what_is_missing(root, tmp_path):
    done = start(root / "scripts" / "seed-x_llama2_13b_qwen_vit_pretrain.sh", tmp_path, [])
    assert done.returncode != 0
    assert "pretrained/llama2/config.json was asked for and is not there" in done.stderr
