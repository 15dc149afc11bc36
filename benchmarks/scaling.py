"""What ranks exchange and hold, and what starting a 13B model takes from each host.

    python benchmarks/scaling.py --json

- ``bytes_per_step``: bytes a rank sends in an update of FSDP2, divided by the formula (parameters
  of blocks twice, of what is around them once, gradients of the trained ones once, each times
  (n - 1) / n), the larger of 2 and 4 processes over gloo. Host numbers of the loop are in it.
- ``peak_memory_ratio_4``: parameters and optimizer state a rank of 4 holds, divided by those of one
  process.
- ``host_rss_gib``: most memory of a process that starts SEED-X (Llama 2 13B, ViT-G, low-rank
  updates, table and head trained) as one of 8 ranks from files of weights, which are all
  zeros and take no room on the disk; the largest of the first, a middle and the last rank.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from result_line import print_line

from mllm_npu.build import compose_model
from mllm_npu.composition import StartingValues
from mllm_npu.config import load_config
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

HERE = Path(__file__).parent
SHARD_BYTES = 5 * 10**9
_KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.bool: "BOOL", torch.int64: "I64"}


def measure_ranks(folder: Path, steps: int) -> dict[str, Any]:
    """Train on 1, 2 and 4 processes."""
    world = folder / "digits"
    command = [sys.executable, "-m", "mllm_npu.cli", "data", "digits", "--out", str(world)]
    subprocess.run(command, check=True, capture_output=True)
    found = {number: _train(folder, world, number, steps) for number in (1, 2, 4)}
    ratios = {
        number: sum(found[number]["bytes_per_step"].values()) / found[number]["formula"]
        for number in (2, 4)
    }
    return {
        "bytes_per_step": round(max(ratios.values()), 4),
        "bytes_per_step_by_ranks": {n: round(ratio, 4) for n, ratio in ratios.items()},
        "sent_mib_per_step": {
            n: round(sum(found[n]["bytes_per_step"].values()) / 2**20, 3) for n in (2, 4)
        },
        "peak_memory_ratio_4": round(found[4]["held_bytes"] / found[1]["held_bytes"], 4),
        "held_mib": {n: round(found[n]["held_bytes"] / 2**20, 2) for n in found},
        "loss_by_ranks": {n: found[n]["loss"] for n in found},
    }


def _train(folder: Path, world: Path, number: int, steps: int) -> dict[str, Any]:
    file = folder / f"ranks-{number}.json"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    overrides = [
        "experiment=digits/mllm",
        "parallel=fsdp2",
        "tracker=[jsonl]",
        f"world_dir={world}",
        f"tokenizer.path={world}/tokenizer",
        f"run_dir={folder}/run-{number}",
        "initialise_from=null",
        "threads=1",
        "preflight=false",
        "dataset.tokens_per_pack=512",
        "models.language_model.config.hidden_size=256",
        "models.language_model.config.intermediate_size=688",
        "models.language_model.config.num_hidden_layers=4",
        "train.packs_per_step=4",
        "train.log_every=1",
        "train.recorder.progress=false",
        "train.throughput.count_flops=false",
        f"train.max_steps={steps}",
    ]
    command = [sys.executable, *launch, str(HERE / "scaling_worker.py"), str(file), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("[rank")]
        raise RuntimeError("\n".join(told[-40:]) or done.stderr[-4000:])
    return json.loads(file.read_text(encoding="utf-8"))


def measure_startup(folder: Path, ranks: int) -> dict[str, Any]:
    """Start some ranks of the 13B configuration, one after the other."""
    tokenizer = train_tokenizer(["draw a seven", "which digit is this?"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=100, num_locations=224))
    tokenizer.save_pretrained(folder / "tokenizer")
    weights = write_empty_weights(folder / "weights")
    found = []
    for rank in (0, ranks // 2, ranks - 1):
        arguments = [str(rank), str(ranks), str(weights), str(folder / "tokenizer")]
        command = [sys.executable, str(HERE / "startup_worker.py"), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:])
        found.append(json.loads(done.stdout.splitlines()[-1]))
    if any(start["without_memory"] for start in found):
        raise RuntimeError(f"parameters without memory: {found}")
    return {
        "host_rss_gib": max(start["host_rss_gib"] for start in found),
        "own_gib": max(start["own_gib"] for start in found),
        "parameters": found[0]["parameters"],
        "weights_gib": round(sum(f.stat().st_size for f in weights.iterdir()) / 2**30, 2),
        "startup_seconds": max(start["seconds"] for start in found),
        "ranks": ranks,
    }


def write_empty_weights(folder: Path) -> Path:
    """Files that hold every value of SEED-X as zeros, in shards as large ones come in.

    The file system keeps none of the zeros.
    """
    config = load_config("training", ["experiment=seedx/sft"])
    with torch.device("meta"):
        model = compose_model(StartingValues(config, weights=["all"]))
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, value in model.state_dict().items():
        if sum(map(_size, shards[-1].values())) + _size(value) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = value
    folder.mkdir()
    index = {}
    for number, values in enumerate(shards):
        file = folder / f"model-{number:05d}.safetensors"
        _write_zeros(file, values)
        index |= dict.fromkeys(values, file.name)
    text = json.dumps({"weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return folder


def _write_zeros(file: Path, values: dict[str, torch.Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in values.items():
        begin, end = end, end + _size(value)
        kind, shape = _KINDS[value.dtype], list(value.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)


def _size(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line (always done)")
    parser.add_argument("--store", action="store_true", help="append it to benchmarks/results")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--ranks", type=int, default=8, help="ranks of the 13B start")
    parser.add_argument("--no-startup", action="store_true", help="leave the 13B start out")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    try:
        figures = measure_ranks(folder, asked.steps)
        if not asked.no_startup:
            figures |= measure_startup(folder, asked.ranks)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_line("scaling", figures, store=asked.store, file="scaling")


if __name__ == "__main__":
    main()
