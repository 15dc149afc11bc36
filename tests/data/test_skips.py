import json
from collections import deque

import pytest

from mllm_npu.data.shards import Break
from mllm_npu.data.skips import FEWEST, RECENT, USED, Outcome, Skips
from mllm_npu.errors import ConfigError, DataError


def fault(sample=0, shard="a.tar", reason="broken"):
    return Outcome(reason=reason, source="set", shard=shard, key=f"k{sample}", sample=sample)


def filtered():
    return Outcome(reason="too small", is_fault=False, source="set", shard="a.tar")


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_counts_by_reason():
    skips = Skips()
    skips.note([USED, fault(), fault(1, reason="empty"), fault(2), filtered()])
    assert skips.by_reason == {"broken": 2, "empty": 1, "too small": 1}


def test_stops_after_so_many_in_a_row_and_names_the_worst_shard():
    skips = Skips(most_in_a_row=5)
    skips.note([fault(n) for n in range(4)])
    with pytest.raises(DataError, match=r"5 samples in a row .* 4 of them from set \(a\.tar\)"):
        skips.note([fault(5, "b.tar", "empty")])


def test_a_used_sample_starts_the_row_anew():
    skips = Skips(most_in_a_row=3, max_share=1.0)
    for n in range(10):
        skips.note([fault(2 * n), fault(2 * n + 1), USED])
    assert skips.by_reason["broken"] == 20


def test_too_large_a_share_stops_and_names_the_worst_shard(tmp_path):
    skips = Skips(max_share=0.05, quarantine=tmp_path / "quarantine.jsonl")
    skips.note([USED] * FEWEST)
    outcomes = [[*[USED] * 9, fault(n, "bad.tar" if n % 3 else "o.tar")] for n in range(FEWEST)]
    with pytest.raises(DataError) as caught:
        deque(map(skips.note, outcomes), maxlen=0)
    message = str(caught.value)
    assert "max_skip_share=0.05 allows 5.0%" in message
    assert "set (bad.tar)" in message
    assert "quarantine.jsonl" in message


def test_a_share_means_nothing_before_enough_samples():
    skips = Skips(max_share=0.05)
    skips.note([USED, fault()] * (FEWEST // 4))


def test_old_faults_are_forgotten():
    skips = Skips(max_share=0.05)
    skips.note([USED] * 1000)
    skips.note([fault(n) for n in range(50)])
    skips.note([USED] * RECENT)
    skips.note([fault(n) for n in range(90)])
    assert skips.by_reason["broken"] == 140


def test_what_a_filter_leaves_out_is_no_fault(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    skips = Skips(max_share=0.01, most_in_a_row=3, quarantine=path)
    skips.note([filtered()] * 3000)
    assert skips.by_reason == {"too small": 3000}
    assert not path.exists()


def test_faults_are_listed_once_over_epochs_and_resumes(tmp_path):
    path = tmp_path / "run" / "quarantine.jsonl"
    first = Skips(quarantine=path)
    first.note([fault(1), USED, fault(2, reason="empty"), fault(1)])
    path.write_text(path.read_text() + '{"source": "cut off')
    path.write_text(path.read_text() + "\n")
    second = Skips(quarantine=path)
    second.note([fault(1), fault(1, reason="empty"), fault(3)])
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line) for line in whole] == [
        {"source": "set", "shard": "a.tar", "key": f"k{n}", "sample": n, "reason": reason}
        for n, reason in ((1, "broken"), (2, "empty"), (1, "empty"), (3, "broken"))
    ]


def test_broken_places_of_a_shard_are_listed(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    skips = Skips(quarantine=path)
    skips.note_breaks("set", "a.tar", [Break(offset=512, reason="The tar ends.")])
    assert skips.by_reason == {"tar broken, samples may be missing": 1}
    assert lines_of(path)[0]["reason"] == "The tar ends. Samples there are lost."


def test_a_quarantine_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    skips = Skips(quarantine=tmp_path / "file" / "quarantine.jsonl")
    with pytest.raises(DataError, match="cannot be written"):
        skips.note([fault()])


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigError, match="max_skip_share"):
        Skips(max_share=share)
