"""A conversion gives the same bytes however often and however it was stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from mllm_npu.data.convert import converter
from mllm_npu.data.convert.converter import QUARANTINE, convert
from mllm_npu.data.convert.source_format import Options
from mllm_npu.errors import ConfigError, DataError

NUM_FILES, NUM_ROWS = 12, 40
NUM_LOST = NUM_FILES * len(range(0, NUM_ROWS, 7))


@pytest.fixture
def source(tmp_path, make_lines, album):
    """Twelve files, each a part, with every seventh row without its picture."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for part in range(NUM_FILES):
        records = [
            {"id": n, "image": "a.jpg" if n % 7 else "gone.jpg", "caption": f"{part} {n}"}
            for n in range(NUM_ROWS)
        ]
        make_lines(folder / f"{part:02d}.jsonl", records)
    return folder


def options(album, rows_per_shard=16):
    return Options(images=str(album), rows_per_shard=rows_per_shard)


def digest(out):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.suffix == ".tar" or path.suffix == ".jsonl"
    }


def test_rows_refusals_and_their_counts(source, album, tmp_path, output):
    summary = convert(source, tmp_path / "out", options=options(album))
    assert summary.rows == NUM_FILES * NUM_ROWS - NUM_LOST
    assert summary.kinds == {"caption": summary.rows}
    assert summary.refused == {"picture file missing": NUM_LOST}
    assert (summary.format_name, summary.parts, summary.resumed) == ("captions", NUM_FILES, 0)
    text = (tmp_path / "out" / QUARANTINE).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == NUM_LOST
    assert lines[1] == {
        "source": str(source / "00.jsonl"),
        "reason": "picture file missing",
        "at": "line 8",
        "detail": "gone.jpg",
    }
    rows = output(tmp_path / "out")
    assert len(rows) == summary.rows
    assert json.loads(rows["00001/0000001"].members["json"]) == {
        "caption": "1 1",
        "meta": {"id": 1},
    }
    shards = list((tmp_path / "out").glob("*.tar"))
    assert summary.shards == len(shards)
    assert summary.num_bytes == sum(path.stat().st_size for path in shards)


def test_any_number_of_workers_gives_the_same_bytes(source, album, tmp_path):
    for workers in (1, 2, 3):
        convert(source, tmp_path / f"{workers}", options=options(album), workers=workers)
    assert digest(tmp_path / "1") == digest(tmp_path / "2") == digest(tmp_path / "3")


def test_a_stopped_conversion_goes_on_with_what_is_missing(source, album, tmp_path, monkeypatch):
    convert(source, tmp_path / "whole", options=options(album))

    def stop_after_one(jobs, **rest):
        real(jobs[:1], **rest)
        raise KeyboardInterrupt

    real = converter.run_jobs
    monkeypatch.setattr(converter, "run_jobs", stop_after_one)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "parts", options=options(album))
    monkeypatch.setattr(converter, "run_jobs", real)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.tar")}
    summary = convert(source, tmp_path / "parts", options=options(album))
    assert summary.resumed == 2
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


KILLED = """
import sys, time
from mllm_npu.data.convert import part_writer
from mllm_npu.data.convert.converter import convert
from mllm_npu.data.convert.source_format import Options
if __name__ == "__main__":
    source, out, images = sys.argv[1:]
    print("begun", flush=True)
    convert(source, out, options=Options(images=images, rows_per_shard=16), workers=2,
            progress=lambda done, total: print(done, flush=True))
"""


def test_kill_9_in_the_middle_leaves_nothing_half_done(source, album, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    out = tmp_path / "killed"
    command = [sys.executable, script, source, out, album]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            if line.strip().isdigit() and int(line) > 0:
                break
        os.kill(process.pid, signal.SIGKILL)
    for path in out.glob("*.tar"):
        assert path.stat().st_size % 10240 == 0
    deadline = time.monotonic() + 20
    while _children_of(out):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.1)
    (out / ".converting" / "00009").mkdir(parents=True, exist_ok=True)
    (out / "00001-00077.tar.partial").write_bytes(b"left over")
    convert(source, out, options=options(album), workers=2)
    convert(source, tmp_path / "whole", options=options(album))
    assert digest(out) == digest(tmp_path / "whole")
    left = {path.name for path in out.iterdir()} - {p.name for p in (tmp_path / "whole").iterdir()}
    assert left == set()


def _children_of(out):
    """Processes that hold a file of the output open."""
    found = []
    for process in os.listdir("/proc"):
        if not process.isdecimal() or int(process) == os.getpid():
            continue
        try:
            held = [
                os.readlink(f"/proc/{process}/fd/{n}") for n in os.listdir(f"/proc/{process}/fd")
            ]
        except OSError:
            continue
        found += [name for name in held if name.startswith(str(out))]
    return found


def test_a_finished_conversion_does_nothing_more(source, album, tmp_path):
    first = convert(source, tmp_path / "out", options=options(album))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar*")}
    again = convert(source, tmp_path / "out", options=options(album), workers=2)
    assert again.resumed == NUM_FILES
    assert (again.rows, again.refused) == (first.rows, first.refused)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(DataError, match="rows_per_shard"):
        convert(source, tmp_path / "out", options=options(album, rows_per_shard=400))


def test_broken_sources_are_named_and_the_rest_is_converted(tmp_path, make_tar, picture, output):
    members = [("0.jpg", picture()), ("0.txt", b"x"), ("1.jpg", picture()), ("1.txt", b"x")]
    path = make_tar(tmp_path / "a.tar", members)
    with tarfile.open(path) as archive:
        cut = archive.getmember("1.jpg").offset
    path.write_bytes(path.read_bytes()[: cut + 600])
    summary = convert(path, tmp_path / "out")
    assert list(output(tmp_path / "out")) == ["00000/0"]
    assert summary.rows == 1
    assert summary.broken == (f"{path}: byte {cut}",)
    assert summary.refused == {"tar broken": 1}


def test_a_source_without_refusals_has_no_quarantine(tmp_path, make_lines):
    make_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    convert(tmp_path / "a.jsonl", tmp_path / "out")
    assert not (tmp_path / "out" / QUARANTINE).exists()
    assert not (tmp_path / "out" / ".converting").exists()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"workers": 0}, ConfigError, "workers=0"),
        ({"options": Options(rows_per_shard=0)}, ConfigError, "rows_per_shard=0"),
        ({"options": Options(draw_share=2)}, ConfigError, "draw_share=2"),
        ({"options": Options(images="/nowhere")}, DataError, "--images"),
        ({"format_name": "lava"}, ConfigError, "'lava' was asked for"),
        ({"format_name": "parquet"}, DataError, "was to be read as parquet, it holds 1 .jsonl"),
    ],
)
def test_useless_settings_are_refused_before_anything_is_made(
    tmp_path, make_lines, settings, error, said
):
    make_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(error, match=said):
        convert(tmp_path / "a.jsonl", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
