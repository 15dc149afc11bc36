"""Converted shards are read by the ``webdataset`` library and by ``megatron-energon``."""

import gc
import io
import json
import subprocess
import sys

import pytest
from PIL import Image

from mllm_npu.data.convert.converter import convert
from mllm_npu.data.convert.source_format import Options


@pytest.fixture
def captions(tmp_path, album, make_lines):
    """Shards of 30 captioned pictures, of three jsonl files."""
    names = ("a.jpg", "b.png", "c.webp")
    for part in range(3):
        records = [
            {"id": f"{part}-{n}", "image": names[n % 3], "caption": f"picture {part} {n}"}
            for n in range(10)
        ]
        make_lines(album / f"{part}.jsonl", records)
    out = tmp_path / "shards"
    assert convert(album, out, options=Options(rows_per_shard=4)).rows == 30
    return out


# The library leaves the files it read open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_every_sample(captions):
    import webdataset

    urls = sorted(str(path) for path in captions.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    gc.collect()
    assert len(samples) == 30
    assert [sample["json"]["caption"] for sample in samples[:10]] == [
        f"picture 0 {n}" for n in range(10)
    ]
    assert samples[0]["jpg"].size == (6, 5)
    assert {key for sample in samples for key in sample if not key.startswith("__")} == {
        "jpg",
        "png",
        "webp",
        "json",
    }


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_several_pictures_of_a_sample(tmp_path, album, make_lines):
    import webdataset

    record = {
        "source_image": "a.jpg",
        "instruction_1": "make it green",
        "edit_image_1": "b.png",
        "instruction_2": "make it blue",
        "edit_image_2": "c.webp",
    }
    make_lines(album / "edit.jsonl", [record])
    convert(album / "edit.jsonl", tmp_path / "out")
    [path] = (tmp_path / "out").glob("*.tar")
    [sample] = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    gc.collect()
    assert json.loads(sample["json"])["turns"][1]["target"] == "2.webp"
    with Image.open(io.BytesIO(sample["2.webp"])) as picture:
        assert picture.format == "WEBP"


READ_BY_ENERGON = """
import sys
from megatron.energon import WorkerConfig, get_loader, get_val_dataset, DefaultTaskEncoder
from megatron.energon import Cooker, basic_sample_keys, stateless, CrudeSample, TextSample

@stateless
def cook(sample):
    return TextSample(**basic_sample_keys(sample), text=sample["json"]["caption"])

class Encoder(DefaultTaskEncoder):
    cookers = [Cooker(cook)]

if __name__ == "__main__":
    dataset = get_val_dataset(
        sys.argv[1], split_part="train", batch_size=None, task_encoder=Encoder(),
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
    )
    texts = [sample.text for sample in get_loader(dataset)]
    assert len(texts) == 30, len(texts)
    print(sorted(texts)[0])
"""


def test_energon_prepares_and_reads_every_sample(captions, tmp_path):
    """In processes of their own: its warnings are not ours."""
    prepare = [
        *(sys.executable, "-m", "megatron.energon.cli.main", "prepare", str(captions)),
        *("--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"),
        *("--num-workers", "1", "--no-progress"),
    ]
    done = subprocess.run(prepare, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    info = json.loads((captions / ".nv-meta" / ".info.json").read_text())
    assert sum(info["shard_counts"].values()) == 30
    assert "uplicate" not in done.stdout + done.stderr
    script = tmp_path / "read.py"
    script.write_text(READ_BY_ENERGON)
    read = subprocess.run(
        [sys.executable, str(script), str(captions)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert read.returncode == 0, read.stdout + read.stderr
    assert read.stdout.splitlines()[-1] == "picture 0 0"
