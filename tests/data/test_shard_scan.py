import pytest

from mllm_npu.data.shard_scan import scan_samples
from mllm_npu.data.shards import write_shard
from mllm_npu.data.storage import open_shard


@pytest.fixture
def scan(tmp_path):
    def run(rows, change=lambda data: data):
        path = tmp_path / "a.tar"
        write_shard(path, rows)
        path.write_bytes(change(path.read_bytes()))
        breaks = []
        return list(scan_samples(open_shard(path), path.stat().st_size, breaks)), breaks

    return run


def test_samples_lie_end_to_end_with_their_pictures_and_texts(scan, make_row, png):
    rows = [
        make_row("a", json_member={"caption": "seven", "more": ["x", {"y": "zz"}]}, png=png(7, 5)),
        make_row("b", txt=b"abc", _0__png=png(2, 3), _1__png=b"broken"),
    ]
    (first, second), breaks = scan(rows)
    assert breaks == []
    assert (first.key, first.start, first.end) == ("a", 0, second.start)
    assert (first.pictures, first.num_chars) == ([(7, 5)], 8)
    assert (second.pictures, second.num_chars) == ([(2, 3), (0, 0)], 3)


def test_broken_json_counts_no_characters(scan, make_row):
    (only,), _ = scan([make_row("a", json=b"{broken", txt=b"ab")])
    assert only.num_chars == 2


def test_a_tar_without_its_end_is_told(scan, make_row):
    samples, breaks = scan([make_row("a", txt=b"x")], change=lambda data: data[:1024])
    assert [sample.key for sample in samples] == ["a"]
    assert [one.reason for one in breaks] == ["The tar ends without its end mark. Make it again."]
