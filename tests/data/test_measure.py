import pytest

from mllm_npu.data.measure import measure_sources
from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import DataError


@pytest.fixture
def sources(tmp_path, make_row):
    for shard in range(3):
        rows = [make_row(f"{shard}-{n}", txt=b"seven" if n else b"") for n in range(4)]
        write_shard(tmp_path / f"a-{shard}.tar", rows)
    write_shard(tmp_path / "b.tar", [make_row("x", txt=b"which digit is this?")])
    return [
        Source(name="a", shards=str(tmp_path / "a-*.tar"), task=PureText()),
        Source(name="b", shards=str(tmp_path / "b.tar"), task=PureText()),
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_shard_is_measured_and_kept(sources, processor, tmp_path, num_workers):
    told = []
    found = measure_sources(
        sources, processor, num_workers=num_workers, progress=lambda *n: told.append(n)
    )
    assert [(one.name, one.num_samples, one.num_usable) for one in found] == [
        ("a", 12, 9),
        ("b", 1, 1),
    ]
    texts = [processor.count_tokens(text) + 1 for text in ("seven", "which digit is this?")]
    assert [one.num_targets for one in found] == [9 * texts[0], texts[1]]
    assert told == [(n, 4) for n in range(1, 5)]
    assert len(list(tmp_path.glob("*.forms-*"))) == 4


def test_kept_lengths_are_not_counted_again(sources, processor, monkeypatch):
    first = measure_sources(sources, processor)
    for source in sources:
        monkeypatch.setattr(source._shards, "row", None)
    assert measure_sources(sources, processor) == first


def test_a_vanished_shard_is_told(sources, processor, tmp_path):
    (tmp_path / "b.tar").unlink()
    with pytest.raises(DataError, match=r"b\.tar cannot be read"):
        measure_sources(sources, processor)
