"""Ranks that are examined together, and one of them dying, hanging or deviating."""

import time

import pytest
from launching import Launch, launch
from play_doctor import examine

from mllm_npu.device.doctor.check import Check
from mllm_npu.distributed.joint_examination import compare_devices

EXCHANGES = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "objects"]
TIMEOUT = 4.0


def burned(loss: float | None = None, state: str = "good") -> Check:
    figures = {} if loss is None else {"last_loss": loss}
    return Check(name="burn-in", state=state, found="so fast", figures=figures)


def test_devices_that_give_the_same_are_told_once():
    rows = compare_devices([[burned(2.5)], [burned(2.5)]])
    assert [row.name for row in rows] == ["rank 0 burn-in", "rank 1 burn-in", "burn-in of all"]
    assert rows[-1].state == "good"


def test_a_device_that_gives_something_else_is_named():
    *_, last = compare_devices([[burned(2.5)], [burned(2.75)], [burned(2.5)]])
    assert last.state == "notice"
    assert last.found == "other losses than most ranks: rank 1 (+0.25)"


def test_without_two_losses_nothing_is_compared():
    assert compare_devices([[], []]) == ()
    assert len(compare_devices([[burned(2.5)], [burned(state="bad")]])) == 2


@pytest.mark.slow
def test_all_ranks_come_to_the_same_rows(tmp_path):
    ended = launch(examine, size=2, folder=tmp_path, timeout=30.0, burn_in_seconds=0.3)
    assert [how for how, _ in ended] == ["came to the end"] * 2
    (_, rows), (_, others) = ended
    assert rows == others
    names = [row["name"] for row in rows]
    assert names[:2] == ["disk", "ranks"]
    assert rows[0]["found"] == "seen by rank 0"
    assert rows[1]["found"].startswith("all 2 are here (2 on ")
    assert names[2:8] == [f"link {exchange}" for exchange in EXCHANGES]
    assert names[8:] == ["rank 0 burn-in", "rank 1 burn-in", "burn-in of all"]
    assert all(row["state"] != "bad" for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("dies", "rank 1 is gone"),
        ("hangs", "the run waits for rank 1"),
        ("never comes", "rank 1 of 2 did not answer within 4 s"),
    ],
)
def test_a_rank_that_does_not_answer_is_named_in_bounded_time(tmp_path, event, words):
    begin = time.monotonic()
    launched = Launch(examine, 2, tmp_path, timeout=TIMEOUT, event=event)
    codes = launched.end(60)
    assert time.monotonic() - begin < 40
    assert codes[0] in (5, 7), launched.log(0)
    told = "".join(path.read_text() for path in tmp_path.glob("*-0"))
    assert words in told
    assert "seen by rank 0" in told


@pytest.mark.slow
def test_a_device_that_deviates_in_its_own_rounds_is_bad(tmp_path):
    launched = Launch(
        examine, 2, tmp_path, timeout=30.0, event="computes something else", burn_in_seconds=0.2
    )
    ended = launched.results()
    rows = {row["name"]: row for row in ended[0][1]}
    assert rows["burn-in of all"]["state"] == "notice"
    assert "rank" in rows["burn-in of all"]["found"]
