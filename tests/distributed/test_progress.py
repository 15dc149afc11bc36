import time
from itertools import pairwise

import pytest

from mllm_npu.distributed.progress import Progress


def test_a_note_keeps_what_it_does_not_name():
    progress = Progress()
    progress.note("forward pass", step=3, keys=["a", "b"])
    progress.note("backward pass")
    assert (progress.step, progress.phase, progress.keys) == (3, "backward pass", ("a", "b"))
    progress.note("waiting for data", step=4, keys=())
    assert (progress.step, progress.phase, progress.keys) == (4, "waiting for data", ())


def test_step_nought_is_a_step():
    progress = Progress(step=5)
    progress.note("trial", step=0)
    assert progress.step == 0


def test_an_exchange_is_open_until_its_end_also_behind_an_error():
    progress = Progress()
    with progress.inside("barrier"):
        assert (progress.collective, progress.inside_collective) == ("barrier", True)
    assert (progress.collective, progress.inside_collective) == ("barrier", False)
    with pytest.raises(RuntimeError), progress.inside("sum"):
        raise RuntimeError
    assert (progress.collective, progress.inside_collective) == ("sum", False)


def test_an_exchange_whose_end_is_not_known_does_not_count_as_open():
    progress = Progress()
    with progress.inside("sum"):
        progress.exchange("gathering of block 1")
    assert (progress.collective, progress.inside_collective) == ("gathering of block 1", False)


def test_every_note_is_a_beat_and_moves_the_clock():
    progress = Progress()
    seen = [(progress.beats, progress.since)]
    for act in (progress.note, progress.exchange):
        time.sleep(0.002)
        act("something new")
        seen.append((progress.beats, progress.since))
    with progress.inside("sum"):
        time.sleep(0.002)
        seen.append((progress.beats, progress.since))
    seen.append((progress.beats, progress.since))
    assert [beats for beats, _ in seen] == [0, 1, 2, 3, 4]
    assert all(later > earlier for (_, earlier), (_, later) in pairwise(seen))
