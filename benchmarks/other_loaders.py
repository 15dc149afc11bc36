"""The same packed batches of captions by way of the libraries of others, for comparison.

Each reads the same shards in one process, shuffles in a buffer, and gives batches of the same
budget with our processor, so that only what the library itself does differs: reading, and the
decoder where it brings its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from mllm_npu.batch import Batch, Sample
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.data.hashing import random_of
from mllm_npu.data.row import Row
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.processing.processor import Processor

SHUFFLE = 1000
KeyedSample = tuple[str, dict[str, Any]]


def read_webdataset(
    shards: list[str], processor: Processor, task: Caption, budget: int, *, own_decoder: bool
) -> Iterator[Batch]:
    """Packed batches by way of the webdataset library.

    Args:
        shards: paths.
        processor: of the samples.
        task: of the rows.
        budget: tokens of a batch.
        own_decoder: decode with the library's Pillow decoder instead of ours.
    """
    import webdataset  # noqa: PLC0415 - slow, and only needed here

    data = webdataset.WebDataset(shards, shardshuffle=False).shuffle(SHUFFLE)
    if own_decoder:
        data = data.decode("pil")
    keyed = ((sample["__key__"], sample) for sample in data)
    yield from _pack(_encode(keyed, processor, task), processor, budget)


def prepare_energon(folder: Path) -> None:
    """Write the library's own index beside the shards."""
    command = [sys.executable, "-m", "megatron.energon.cli.main", "prepare", str(folder)]
    options = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"]
    subprocess.run(
        [*command, *options, "--num-workers", "1", "--no-progress"], check=True, capture_output=True
    )


def read_energon(
    folder: Path, processor: Processor, task: Caption, budget: int, *, own_decoder: bool
) -> Iterator[Batch]:
    """Packed batches by way of megatron-energon; arguments as in ``read_webdataset``."""
    keyed = (
        (sample.__key__, sample.text) for sample in _open_energon(folder, own_decoder=own_decoder)
    )
    yield from _pack(_encode(keyed, processor, task), processor, budget)


def _open_energon(folder: Path, *, own_decoder: bool) -> Iterable[Any]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from megatron import energon  # noqa: PLC0415 - slow, and only needed here

    @energon.stateless
    def cook(sample: Any) -> Any:
        return energon.TextSample(
            **energon.basic_sample_keys(sample), text={"jpg": sample["jpg"], "json": sample["json"]}
        )

    class Encoder(energon.DefaultTaskEncoder):  # type: ignore[misc, type-arg]
        decoder = energon.SampleDecoder(image_decode="pilrgb") if own_decoder else None
        cookers = (energon.Cooker(cook),)

    dataset = energon.get_train_dataset(
        str(folder),
        split_part="train",
        batch_size=None,
        task_encoder=Encoder(),
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        shuffle_buffer_size=SHUFFLE,
        max_samples_per_sequence=None,
    )
    return energon.get_loader(dataset)


def _encode(keyed: Iterable[KeyedSample], processor: Processor, task: Caption) -> Iterator[Sample]:
    for number, (key, found) in enumerate(keyed):
        rng = random_of(0, number)
        yield processor.encode(task.to_conversation(_to_row(key, found), rng), rng=rng)


def _to_row(key: str, found: dict[str, Any]) -> Row:
    """A row of ours, with the picture and the json as the library gives them."""
    note = found["json"]
    members = {"json": note if isinstance(note, bytes) else json.dumps(note).encode()}
    if isinstance(found["jpg"], Image.Image):
        return Row(key=key, members=members, rendered={"jpg": found["jpg"]})
    return Row(key=key, members={"jpg": found["jpg"], **members})


def _pack(samples: Iterable[Sample], processor: Processor, budget: int) -> Iterator[Batch]:
    """Batches filled one after the other, as a stream allows."""
    blank = BlankTile.of(processor)
    held: list[Sample] = []
    room = budget
    for sample in samples:
        if sample.num_tokens > room:
            yield collate(held, blank=blank)
            held, room = [], budget
        held.append(sample)
        room -= sample.num_tokens
