"""Parts are converted here or apart, with the same result and a sum of progress."""

import multiprocessing

import pytest

from mllm_npu.data.convert import part_pool
from mllm_npu.data.convert.formats import choose_format
from mllm_npu.data.convert.listing import list_files
from mllm_npu.data.convert.part_pool import Job, Meter, run_jobs
from mllm_npu.data.convert.source_format import Options, Part
from mllm_npu.errors import DataError

TEXTS = [{"text": f"text {number}"} for number in range(9)]


def jobs(source, out):
    options = Options(rows_per_shard=5)
    listing = list_files(source)
    chosen = choose_format(listing)
    parts = list(chosen.split(listing, options))
    out.mkdir(exist_ok=True)
    return parts, [
        Job(format_name=chosen.name, part=part, number=number, options=options, out=out)
        for number, part in enumerate(parts)
    ]


@pytest.fixture
def source(tmp_path, make_lines):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in "abc":
        make_lines(folder / f"{name}.jsonl", TEXTS)
    return folder


def run(source, out, workers):
    parts, todo = jobs(source, out)
    reports, moved = [], []
    meter = Meter(
        parts=parts, missing=range(3), progress=lambda done, total: moved.append((done, total))
    )
    run_jobs(todo, workers=workers, meter=meter, note=reports.append)
    return sorted(reports, key=lambda report: report.number), moved


def test_several_processes_give_what_one_gives(source, tmp_path):
    here, moved_here = run(source, tmp_path / "here", 1)
    apart, moved_apart = run(source, tmp_path / "apart", 2)
    assert here == apart
    assert [report.rows for report in here] == [9, 9, 9]
    assert moved_here[-1] == moved_apart[-1] == (27, 27)
    assert moved_apart == sorted(moved_apart)
    for path in (tmp_path / "here").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "apart" / path.name).read_bytes()
    assert multiprocessing.active_children() == []


def test_an_error_of_a_worker_comes_through(source, tmp_path):
    _, todo = jobs(source, tmp_path / "out")
    (source / "b.jsonl").unlink()
    parts = [job.part for job in todo]
    meter = Meter(parts=parts, missing=range(3), progress=None)
    with pytest.raises(DataError, match=r"b\.jsonl was to be converted and cannot be read"):
        run_jobs(todo, workers=2, meter=meter, note=lambda report: None)


def test_progress_counts_rows_or_megabytes():
    told = []
    rows = [Part(path="a", num_rows=10, num_bytes=5), Part(path="b", num_rows=20, num_bytes=5)]
    meter = Meter(parts=rows, missing=[1], progress=lambda *moved: told.append(moved))
    meter.move(1, 4, 999)
    meter.show()
    meter.move(1, 99, 999)
    meter.show()
    assert told == [(14, 30), (30, 30)]
    told.clear()
    tars = [Part(path="a", num_bytes=5_000_000), Part(path="b", num_bytes=700_000)]
    meter = Meter(parts=tars, missing=[0, 1], progress=lambda *moved: told.append(moved))
    meter.move(0, 4, 2_000_000)
    meter.show()
    meter.finish(0)
    meter.finish(1)
    assert told == [(2, 6), (5, 6), (5, 6)]


def test_a_worker_stops_when_it_is_told(source, tmp_path, monkeypatch):
    _, todo = jobs(source, tmp_path / "out")
    slots = [0, 0, 0, 0]
    monkeypatch.setattr(part_pool, "_SLOTS", [slots, True])
    assert part_pool._work(todo[0]).rows == 9
    assert slots[0] == 9
    slots[-1] = 1
    with pytest.raises(KeyboardInterrupt):
        part_pool._work(todo[1])
