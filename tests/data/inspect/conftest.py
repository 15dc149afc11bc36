"""A small world of captions, chats and texts that the tests look at."""

import pytest

from mllm_npu.data.inspect.token_piece import PieceCutter
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.pure_text import PureText

SIZES = ((16, 16), (32, 16), (48, 16), (16, 32), (96, 16))
CAPTIONS = ("a red circle", "<script>alert(1)</script>", "一条金鱼", "a <b>blue</b> one\nand more")
NUM_CAPTIONS, NUM_CHATS, NUM_TEXTS = 24, 10, 12


def write_world(folder, make_row, png):
    """Three data sets; of the texts one is empty and one longer than the processor takes."""
    captions = [
        make_row(
            f"caption{number}",
            png=png(*SIZES[number % len(SIZES)], (10 * number, 0, 90)),
            txt=CAPTIONS[number % len(CAPTIONS)].encode(),
        )
        for number in range(NUM_CAPTIONS)
    ]
    chats = [make_chat(make_row, png, number) for number in range(NUM_CHATS)]
    texts = [
        make_row(f"text{number}", txt=b"seven is this? " * (number + 1))
        for number in range(NUM_TEXTS)
    ]
    texts += [make_row("empty", txt=b"  "), make_row("long", txt=b"which digit " * 90)]
    # Two shards, so that places in a shard differ from numbers in the source.
    write_shard(folder / "caption-0.tar", captions[:10])
    write_shard(folder / "caption-1.tar", captions[10:])
    write_shard(folder / "chat-0.tar", chats)
    write_shard(folder / "text-0.tar", texts)
    return folder


def make_chat(make_row, png, number):
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "0.png"},
                {"type": "text", "text": "which digit is this?"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": f"it is {number}"},
                {"type": "image", "image": "1.png"},
            ],
        },
    ]
    return make_row(
        f"chat{number}", {"messages": messages}, _0__png=png(48, 16), _1__png=png(20, 10)
    )


def open_world(folder, processor, **changes):
    """The batches of the world, every data set by its size."""
    sources = [
        Source(
            name="caption",
            shards=str(folder / "caption-*.tar"),
            task=Caption(),
            weight=NUM_CAPTIONS,
        ),
        Source(
            name="chat", shards=str(folder / "chat-*.tar"), task=Instruction(), weight=NUM_CHATS
        ),
        Source(
            name="text", shards=str(folder / "text-*.tar"), task=PureText(), weight=NUM_TEXTS + 2
        ),
    ]
    settings = {"tokens_per_pack": 256, "seed": 3, "plan_window": 16, "sources": sources}
    return PackedBatches(processor=processor, **{**settings, **changes})


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory, make_row, png):
    return write_world(tmp_path_factory.mktemp("inspected"), make_row, png)


@pytest.fixture(scope="session")
def open_batches(world_folder, processor):
    """Opens the world with other settings."""

    def build(**changes):
        return open_world(world_folder, processor, **changes)

    return build


@pytest.fixture(scope="session")
def batches(open_batches):
    return open_batches()


@pytest.fixture(scope="session")
def cutter(tokenizer):
    return PieceCutter(tokenizer=tokenizer)


@pytest.fixture(scope="session")
def picks(batches):
    """Every planned sample of an epoch."""
    plan = batches.order.plan
    windows = [plan.window(0, number) for number in range(plan.num_windows(0))]
    return [pick for window in windows for pack in window.packs for pick in pack]
