"""Who hangs, dies or fails is named by the others; threads stand for ranks here."""

import json
import time

import pytest
import torch.distributed as dist

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.progress import Progress
from mllm_npu.distributed.watchdog import Watchdog
from mllm_npu.errors import DataError, TrainingError

TIMEOUT = 0.5
PAUSE = 0.1


class Ranks:
    """Watchdogs of several ranks over one store; ``said`` holds the verdict each ended with."""

    def __init__(self, size: int, folder=None) -> None:
        self.store = dist.HashStore()
        self.said: dict[int, str] = {}
        self.progress = [Progress() for _ in range(size)]
        self.dogs = [
            Watchdog(
                progress=progress,
                rank=rank,
                world_size=size,
                timeout_seconds=TIMEOUT,
                folder=folder,
                store=self.store if size > 1 else None,
                end=lambda verdict, rank=rank: self.said.setdefault(rank, verdict),
            )
            for rank, progress in enumerate(self.progress)
        ]

    def __enter__(self):
        for dog in self.dogs:
            dog.__enter__()
        return self

    def __exit__(self, *_):
        for dog in self.dogs:
            dog.__exit__(None, None, None)

    def die(self, rank: int) -> None:
        """The process is gone: nothing is reported any more, and nobody has said goodbye."""
        self.dogs[rank]._stopping.set()
        self.dogs[rank]._thread.join()

    def live(self, seconds: float, *alive: int) -> None:
        """Let time pass in which some ranks get on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.said:
            for rank in alive:
                self.progress[rank].note("work", step=self.progress[rank].step + 1)
            time.sleep(PAUSE / 4)
        time.sleep(2.5 * PAUSE)


def test_who_gets_on_is_left_alone():
    with Ranks(2) as ranks:
        ranks.live(3 * TIMEOUT, 0, 1)
    assert ranks.said == {}
    assert [dog.verdict for dog in ranks.dogs] == [None, None]


def test_a_hang_of_a_single_process_is_told_with_all_that_is_known(tmp_path):
    begin = time.monotonic()
    with Ranks(1, tmp_path / "hangs") as ranks:
        ranks.progress[0].note("forward pass", step=7, keys=["cat-1", "cat-2"])
        ranks.progress[0].exchange("gathering of block 3")
        ranks.live(4 * TIMEOUT)
    assert time.monotonic() - begin < 4 * TIMEOUT
    verdict = ranks.said[0]
    assert "the run waits for rank 0" in verdict
    assert "step 7, forward pass" in verdict
    assert "last exchange gathering of block 3, samples cat-1, cat-2" in verdict
    report = (tmp_path / "hangs" / "hang-rank0.txt").read_text()
    assert report.startswith(verdict)
    assert json.loads(report.splitlines()[1])["step"] == 7
    assert "thread MainThread:" in report
    assert "in live" in report


@pytest.mark.parametrize("culprit", [0, 1, 2])
@pytest.mark.parametrize("waits", ["known", "unknown", "unknown as well"])
def test_the_rank_the_others_wait_for_is_named_by_all(culprit, waits):
    """Whether it is known of the others that they wait in an exchange, or not."""
    with Ranks(3) as ranks:
        for rank, progress in enumerate(ranks.progress):
            progress.note("forward pass", step=4, keys=[f"sample of {rank}"])
            if rank != culprit:
                progress.exchange("gathering of block 1")
                progress.collective = "barrier" if waits == "known" else progress.collective
                progress.inside_collective = waits == "known"
            elif waits == "unknown as well":
                progress.phase = "backward pass"
        ranks.live(4 * TIMEOUT)
    assert set(ranks.said) == {0, 1, 2}
    for verdict in ranks.said.values():
        assert f"the run waits for rank {culprit}. rank {culprit} (process" in verdict
        assert f"samples sample of {culprit}" in verdict


def test_a_rank_that_is_steps_behind_is_named_even_if_it_seems_to_wait():
    with Ranks(2) as ranks:
        ranks.progress[1].note("update", step=3)
        ranks.progress[1].inside_collective = True
        ranks.progress[0].note("forward pass", step=4)
        ranks.live(4 * TIMEOUT)
    assert "waits for rank 1" in ranks.said[0]


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_a_dead_rank_is_named_with_where_it_was_last_seen(culprit):
    others = [rank for rank in range(3) if rank != culprit]
    with Ranks(3) as ranks:
        ranks.progress[culprit].note("update", step=9, keys=["last one"])
        ranks.live(2 * PAUSE, *others)
        ranks.die(culprit)
        ranks.live(4 * TIMEOUT, *others)
    assert set(ranks.said) == set(others)
    for verdict in ranks.said.values():
        assert verdict.startswith(f"rank {culprit} is gone. It was last seen: rank {culprit} ")
        assert "step 9, update" in verdict
        assert "samples last one" in verdict


def test_a_rank_that_dies_before_its_first_look_is_missed_too():
    with Ranks(2) as ranks:
        ranks.die(1)
        ranks.live(4 * TIMEOUT, 0)
    assert ranks.said[0].startswith("rank 1 is gone")


def test_a_dead_rank_is_told_from_one_that_others_wait_for():
    """They all stand still then, and the death is noticed first."""
    with Ranks(2) as ranks:
        for progress in ranks.progress:
            progress.note("backward pass", step=5)
        ranks.die(1)
        ranks.live(4 * TIMEOUT)
    assert ranks.said[0].startswith("rank 1 is gone")


def test_a_clean_end_is_no_death():
    with Ranks(3) as ranks:
        ranks.live(2 * PAUSE, 0, 1, 2)
        ranks.dogs[1].__exit__(None, None, None)
        ranks.live(3 * TIMEOUT, 0, 2)
    assert ranks.said == {}


def test_an_end_by_an_error_is_not_clean():
    with Ranks(2) as ranks:
        error = ValueError("no")
        ranks.dogs[1].__exit__(ValueError, error, None)
        ranks.live(4 * TIMEOUT, 0)
    assert ranks.said[0].startswith("rank 1 is gone")


def test_a_failure_is_told_to_the_others_at_once_and_not_to_oneself():
    begin = time.monotonic()
    with Ranks(3) as ranks:
        ranks.dogs[1].tell_failure("DataError: shard-7.tar\n is cut off")
        ranks.live(TIMEOUT, 0, 1, 2)
    assert time.monotonic() - begin < 2 * TIMEOUT
    assert set(ranks.said) == {0, 2}
    assert set(ranks.said.values()) == {"rank 1 has failed: DataError: shard-7.tar is cut off"}


def test_the_first_verdict_counts():
    with Ranks(2) as ranks:
        ranks.dogs[0].tell_failure("first")
        ranks.dogs[1].tell_failure("second")
        time.sleep(3 * PAUSE)
        verdicts = {dog.verdict for dog in ranks.dogs}
    assert verdicts == {"rank 0 has failed: first"}


@pytest.mark.parametrize(
    "text", ["[gloo] Connection closed by peer", "NCCL error: remote process exited"]
)
def test_a_failed_exchange_becomes_an_error_that_names_the_rank(text):
    with Ranks(2) as ranks:
        ranks.dogs[1].tell_failure("DataError: no more data.")
        named = pytest.raises(TrainingError, match=r"rank 1 has failed.*no more data\. The same")
        with named, ranks.dogs[0].explaining():
            raise RuntimeError(text)
    assert ranks.said == {}


def test_where_nobody_knows_a_failed_exchange_stays_what_it_is():
    with Ranks(2) as ranks:
        ranks.dogs[0]._thread.join(0)
        ranks.die(0)
        with pytest.raises(RuntimeError, match="gloo"), ranks.dogs[0].explaining():
            raise RuntimeError("gloo: timed out")


@pytest.mark.parametrize("error", [DataError("cut off"), RuntimeError("shapes do not fit")])
def test_an_error_of_ones_own_stays_what_it_is_and_is_told(error):
    with Ranks(2) as ranks:
        with pytest.raises(type(error), match=str(error)), ranks.dogs[1].explaining():
            raise error
        time.sleep(3 * PAUSE)
    assert ranks.said == {0: f"rank 1 has failed: {type(error).__name__}: {error}"}


def test_a_store_that_is_gone_ends_the_run(monkeypatch):
    class Gone(dist.HashStore):
        def check(self, keys):
            raise RuntimeError("Broken pipe")

    monkeypatch.setattr(dist, "HashStore", Gone)
    with Ranks(2) as ranks:
        ranks.live(TIMEOUT, 0, 1)
    assert set(ranks.said.values()) == {"the store of all ranks cannot be reached: Broken pipe"}


def test_it_takes_ranks_and_timeout_from_the_mesh(tmp_path):
    mesh = Mesh.single()
    mesh.timeout_seconds = 9.0
    dog = Watchdog.of(mesh, folder=tmp_path)
    assert (dog.rank, dog.world_size, dog.timeout_seconds) == (0, 1, 9.0)
    assert dog.progress is mesh.progress


def test_a_folder_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "file").touch()
    with Ranks(1, tmp_path / "file") as ranks:
        ranks.live(4 * TIMEOUT)
    assert "waits for rank 0" in ranks.said[0]
