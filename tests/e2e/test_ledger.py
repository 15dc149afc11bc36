"""A ledger of sample ids over three epochs on 1, then 4, then 2 ranks, each a process of its own.

Every rank plans for itself and tells nothing to the others; workers change from part to part, and
one rank of the second part is killed in the middle and started again from the saved position.
"""

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.data.worlds.digits import make_digits

pytestmark = pytest.mark.slow

RANK = """
import json, sys, time
from itertools import islice
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import load_tokenizer

given = json.loads(sys.argv[1])
folder = given["folder"]
sources = [
    Source(name="caption", shards=f"{folder}/caption/train-*.tar", task=Caption()),
    Source(name="text", shards=f"{folder}/text/train-*.tar", task=PureText()),
]
for source in sources:
    source.weight = len(source)
loader = PackedBatches(
    sources=sources,
    processor=Processor(
        tokenizer=load_tokenizer(path=f"{folder}/tokenizer"),
        any_resolution=AnyResolution(grids=["1x1"], tile_size=16),
        chat_template=ChatTemplate(),
        num_read_tokens=4,
        num_drawn_tokens=4,
        max_tokens=200,
    ),
    tokens_per_pack=45,
    seed=3,
    plan_window=64,
    shuffle_window=32,
    rank=given["rank"],
    world_size=given["world_size"],
    num_workers=given["num_workers"],
    epochs=3,
)
if given["state"]:
    loader.load_state_dict(given["state"])
for batch in islice(loader, given["steps"]):
    names = [[s, k] for s, k in zip(batch.sources, batch.keys) if s]
    print(json.dumps(names), flush=True)
    time.sleep(given["pause"])
print(json.dumps(loader.state_dict()), flush=True)
loader.close()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    make_digits(folder, scale=0.03)
    return folder


def start(folder, *, rank, world_size, num_workers, steps, state, pause=0.0):
    given = {
        "folder": str(folder),
        "rank": rank,
        "world_size": world_size,
        "num_workers": num_workers,
        "steps": steps,
        "state": state,
        "pause": pause,
    }
    command = [sys.executable, "-c", RANK, json.dumps(given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """What a rank was given, and the position behind it."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    *batches, state = map(json.loads, out.splitlines())
    return [tuple(name) for batch in batches for name in batch], len(batches), state


def test_no_sample_is_lost_or_repeated(folder):
    ledger, packs, state = Counter(), 0, None
    for world_size, steps, workers in ((1, 8, [0]), (4, 5, [0, 1, 2, 1]), (2, 10_000, [2, 0])):
        common = {"world_size": world_size, "steps": steps, "state": state}
        ranks = [
            start(folder, rank=rank, num_workers=workers[rank], **common)
            for rank in range(world_size)
        ]
        if world_size == 4:
            # The third rank dies in its work; what it was given counts for nothing.
            victim = start(folder, rank=2, num_workers=1, pause=0.5, **common)
            victim.stdout.readline()
            victim.send_signal(signal.SIGKILL)
            victim.communicate(timeout=60)
        found = [finish(process) for process in ranks]
        for names, count, _ in found:
            ledger.update(names)
            packs += count
        states = [behind for _, _, behind in found]
        assert all(behind == states[0] for behind in states)
        state = states[0]
    sources = (
        Source(name="caption", shards=f"{folder}/caption/train-*.tar", task=Caption()),
        Source(name="text", shards=f"{folder}/text/train-*.tar", task=PureText()),
    )
    everything = Counter(
        {(source.name, source.row(n).key): 3 for source in sources for n in range(len(source))}
    )
    repeated, missing = ledger - everything, everything - ledger
    assert not repeated
    # At most the last step is left out, where one of the two ranks would have no pack.
    assert sum(missing.values()) < 5
    assert packs > 40
