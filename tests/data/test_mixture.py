import numpy as np
import pytest

from mllm_npu.data.mixture import Mixture, share_out
from mllm_npu.errors import ConfigError


def mixture_of(stages=((0, (1.0, 3.0)),), samples_per_epoch=1000, window=64):
    return Mixture(stages=stages, samples_per_epoch=samples_per_epoch, window=window)


def windows_of(mixture, epoch):
    return [mixture.window(epoch, number) for number in range(mixture.num_windows(epoch))]


def test_windows_of_an_epoch_take_each_source_end_to_end():
    mixture = mixture_of()
    places = np.zeros(2, dtype=int)
    for epoch in range(3):
        before = 0
        for window in windows_of(mixture, epoch):
            assert window.before == before
            assert window.starts == tuple(places)
            places += window.counts
            before += sum(window.counts)
        assert before == 1000
    assert places.tolist() == [750, 2250]


def test_every_window_has_its_share():
    for window in windows_of(mixture_of(), 0):
        assert 50 <= sum(window.counts) <= 80
        assert window.counts[0] / sum(window.counts) == pytest.approx(0.25, abs=0.03)


def test_a_window_is_found_from_the_samples_before():
    mixture = mixture_of(stages=((0, (1.0, 0.0)), (300, (1.0, 2.0))), samples_per_epoch=777)
    for epoch in range(2):
        windows = windows_of(mixture, epoch)
        for consumed in range(777):
            number = mixture.find(epoch, consumed)
            window = windows[number]
            assert window.before <= consumed < window.before + sum(window.counts)


def test_stages_change_the_weights_where_they_begin():
    mixture = mixture_of(
        stages=((0, (1.0, 0.0)), (600, (0.0, 1.0)), (2100, (1.0, 1.0))), samples_per_epoch=1000
    )
    totals = [
        np.sum([window.counts for window in windows_of(mixture, epoch)], axis=0).tolist()
        for epoch in range(4)
    ]
    assert totals == [[600, 400], [0, 1000], [450, 550], [500, 500]]
    first = windows_of(mixture, 0)
    switch = next(number for number, window in enumerate(first) if window.counts[1])
    assert first[switch].before == 600
    assert not any(window.counts[0] for window in first[switch:])


def test_an_epoch_of_a_billion_samples_is_found_at_once():
    mixture = mixture_of(samples_per_epoch=10**9, window=8192)
    number = mixture.find(0, 987_654_321)
    window = mixture.window(0, number)
    assert window.before <= 987_654_321 < window.before + sum(window.counts)
    assert mixture.window(0, mixture.num_windows(0) - 1).before > 10**9 - 20_000


def test_a_source_of_tiny_weight_still_comes():
    mixture = mixture_of(stages=((0, (1.0, 0.001)),), samples_per_epoch=5000)
    assert sum(window.counts[1] for window in windows_of(mixture, 0)) == 5


def test_shares_are_whole_and_sum_up():
    assert share_out(10, [1, 1, 1]) == [4, 3, 3]
    assert share_out(7, [0.5, 0.25, 0.25]) == [3, 2, 2]
    assert share_out(5, [1, 0]) == [5, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ((0, (1.0, -2.0)),)}, "may be negative"),
        ({"stages": ((0, (0.0, 0.0)),)}, "nor all zero"),
        ({"stages": ((0, (float("nan"), 1.0)),)}, "may be negative"),
        ({"samples_per_epoch": 0}, "samples_per_epoch=0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        mixture_of(**changes)
