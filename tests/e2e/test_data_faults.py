"""Every kind of broken data: nothing is lost silently, the rest is trained on, and runs go on."""

import io
import json
import shutil
import struct
import zlib
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from mllm_npu.cli import main
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import load_tokenizer


def encode(picture, form="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def noise(width=24, height=16, mode="RGB"):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def bomb():
    """A PNG that says it has 10^10 pixels, in a hundred bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(), "JPEG", exif=exif)


def animated():
    return encode(noise(), "WEBP", save_all=True, append_images=[noise(mode="L").convert("RGB")])


JPEG = encode(noise(), "JPEG")
USABLE = {
    "plain": ("jpg", JPEG),
    "cmyk": ("jpg", encode(noise(mode="CMYK"), "JPEG")),
    "grey": ("jpg", encode(noise(mode="L"), "JPEG")),
    "sixteen-bit": ("png", encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16)))),
    "palette": ("png", encode(noise(mode="P"))),
    "transparent": ("png", encode(noise(mode="RGBA"))),
    "turned": ("jpg", turned()),
    "animated": ("webp", animated()),
    "one-pixel": ("png", encode(noise(1, 1))),
    "twenty-megapixels": ("jpg", encode(Image.new("RGB", (5200, 3900)), "JPEG")),
}
BROKEN = {
    "cut": ("jpg", JPEG[: len(JPEG) // 2], "picture cannot be read"),
    "rubbish": ("png", b"no picture", "picture cannot be read"),
    "bomb": ("png", bomb(), "picture has too many pixels"),
    "empty-file": ("jpg", b"", "picture cannot be read"),
}
CAPTION = json.dumps({"caption": "a handwritten seven"}).encode()


def rows():
    """Rows that can be used, and rows with the reason why they cannot."""
    for name, (extension, data) in USABLE.items():
        yield Row(key=name, members={extension: data, "json": CAPTION}), ""
    for name, (extension, data, reason) in BROKEN.items():
        yield Row(key=name, members={extension: data, "json": CAPTION}), reason
    good = {"jpg": JPEG}
    yield Row(key="wrong-json", members={**good, "json": b"{caption"}), "json member broken"
    yield Row(key="a-list", members={**good, "json": b"[1]"}), "json member is not an object"
    yield Row(key="no-caption", members={**good, "json": b"{}"}), "caption missing"
    yield Row(key="blank", members={**good, "json": b'{"caption": " "}'}), "caption empty"
    yield Row(key="no-picture", members={"json": CAPTION}), "picture missing"
    yield Row(key="not-utf8", members={**good, "txt": b"\xff\xfe"}), "txt member is not UTF-8"
    deep = b'{"caption": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield Row(key="deep", members={**good, "json": deep}), "json member broken"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    make_digits(folder, scale=0.03)
    return folder


@pytest.fixture(scope="module")
def processor(world):
    return Processor(
        tokenizer=load_tokenizer(path=str(world / "tokenizer")),
        any_resolution=AnyResolution(grids=["1x1", "2x1"], tile_size=16, exact=False),
        chat_template=ChatTemplate(),
        num_read_tokens=4,
        num_drawn_tokens=4,
        max_tokens=200,
    )


def read_all(source, processor, quarantine, num_workers=0):
    loader = PackedBatches(
        sources=[source],
        processor=processor,
        tokens_per_pack=200,
        seed=0,
        num_workers=num_workers,
        quarantine=quarantine,
        max_skip_share=1.0,
    )
    batches = list(islice(loader, len(loader.order.epoch(0))))
    used = Counter(key for batch in batches for key in batch.keys if key)
    lines = quarantine.read_text().splitlines() if quarantine.exists() else []
    return used, [json.loads(line) for line in lines], loader


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("draw_share", [0.0, 1.0])
def test_every_row_is_used_or_listed_with_its_reason(tmp_path, processor, num_workers, draw_share):
    expected = list(rows())
    write_shard(tmp_path / "a.tar", [row for row, _ in expected])
    task = Caption(draw_share=draw_share)
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=task)
    used, listed, loader = read_all(source, processor, tmp_path / "q.jsonl", num_workers)
    assert used == Counter(row.key for row, reason in expected if not reason)
    assert {line["key"]: line["reason"] for line in listed} == {
        row.key: reason for row, reason in expected if reason
    }
    assert {line["shard"] for line in listed} == {str(tmp_path / "a.tar")}
    assert sum(loader.skipped.values()) == len(listed)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "1.png"])
def test_a_picture_name_leads_nowhere_but_to_its_row(tmp_path, processor, name):
    (tmp_path / "secret.png").write_bytes(encode(noise()))
    note = json.dumps({"parts": [{"text": "see "}, {"image": name}]}).encode()
    row = Row(key="r", members={"0.png": encode(noise()), "json": note})
    write_shard(tmp_path / "deep" / "a.tar", [row])
    source = Source(name="set", shards=str(tmp_path / "deep" / "a.tar"), task=Interleaved())
    used, listed, _ = read_all(source, processor, tmp_path / "q.jsonl")
    assert not used
    assert [line["reason"] for line in listed] == ["picture missing"]


def shard_of(path, count=12):
    write_shard(
        path,
        [Row(key=f"k{n:02d}", members={"jpg": JPEG, "json": CAPTION}) for n in range(count)],
    )
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("at", ["header", "name", "size"])
def test_flipped_bytes_in_a_tar_cost_their_sample_alone(tmp_path, processor, at):
    data = shard_of(tmp_path / "a.tar")
    header = data.index(b"k05.jpg")
    place = {"header": 150, "name": 1, "size": 130}[at]
    data[header + place] ^= 0x15
    (tmp_path / "a.tar").write_bytes(data)
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption())
    used, listed, _ = read_all(source, processor, tmp_path / "q.jsonl")
    assert set(used) == {f"k{n:02d}" for n in range(12) if n != 5}
    assert any("header" in line["reason"] and line["key"] == "" for line in listed)


def test_flipped_bytes_in_pictures_are_skipped_or_decoded_as_pillow_does(tmp_path, processor):
    data = shard_of(tmp_path / "a.tar", 40)
    rng = np.random.default_rng(1)
    begin = 0
    for _ in range(40):
        begin = data.index(JPEG[:4], begin) + len(JPEG)
        data[begin - int(rng.integers(10, len(JPEG) - 30))] ^= int(rng.integers(1, 255))
    (tmp_path / "a.tar").write_bytes(data)
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption())
    used, listed, _ = read_all(source, processor, tmp_path / "q.jsonl")
    assert len(used) + len({line["key"] for line in listed}) == 40
    assert {line["reason"] for line in listed} <= {
        "picture cannot be read",
        "picture has too many pixels",
    }


def test_a_tar_that_was_cut_gives_what_is_whole(tmp_path, processor):
    data = shard_of(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(data[: data.index(b"k09.json") + 300])
    source = Source(name="set", shards=str(tmp_path / "a.tar"), task=Caption())
    used, listed, _ = read_all(source, processor, tmp_path / "q.jsonl")
    assert set(used) == {f"k{n:02d}" for n in range(9)}
    reasons = sorted(line["reason"] for line in listed)
    assert len(reasons) == 2
    assert "txt member missing" in reasons  # the picture was whole, what is said of it was not
    assert any("The tar ends inside a header" in reason for reason in reasons)


def train(world, runs, *more):
    settings = (
        f"world_dir={world}",
        f"output_dir={runs}",
        "train.max_steps=6",
        "train.checkpoint_every=2",
        "train.schedule.warmup_steps=2",
        "train.log_every=1",
        "train.recorder.progress=false",
        "tracker=[jsonl]",
        "dataset.tokens_per_pack=512",
        "dataset.num_workers=1",
        "dataset.sources.0.cache_rows=false",
        # What a trial of packs has opened could still be read when it is gone.
        "preflight=false",
        "threads=1",
    )
    return main(["train", "experiment=digits/vision", *settings, *more])


@pytest.mark.slow
def test_a_shard_that_vanishes_in_training_stops_with_one_line_and_the_run_goes_on(
    world, tmp_path, capsys, monkeypatch
):
    read, seen = PackedBatches.__next__, []

    def count(self):
        seen.append(None)
        return read(self)

    monkeypatch.setattr(PackedBatches, "__next__", count)
    assert train(world, tmp_path / "whole") == 0
    until_last_but_one = len(seen) - 1
    mine = tmp_path / "world"
    shutil.copytree(world, mine)
    [shard] = (mine / "caption").glob("train-*.tar")
    seen.clear()

    def vanish(self):
        seen.append(None)
        if len(seen) == until_last_but_one:
            shard.rename(shard.with_suffix(".away"))
            self.close()
        return read(self)

    monkeypatch.setattr(PackedBatches, "__next__", vanish)
    capsys.readouterr()
    assert train(mine, tmp_path / "runs") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("DataError: Shard")
    assert "Put it back, then resume." in message
    monkeypatch.setattr(PackedBatches, "__next__", read)
    shard.with_suffix(".away").rename(shard)
    assert train(mine, tmp_path / "runs") == 0
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "digits/vision/metrics.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "runs")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) == 6
