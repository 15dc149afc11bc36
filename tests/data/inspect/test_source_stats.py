"""Counts of a data set add up, whatever the windows they come in."""

import itertools
import json

import numpy as np
import pytest

from mllm_npu.data.inspect.source_stats import (
    BrokenPlace,
    PlannedSamples,
    SourceStats,
    bin_sizes,
)


def planned():
    """Four samples: one is unusable, one too long."""
    return PlannedSamples(
        tokens=np.array([10, 20, 0, 999]),
        targets=np.array([1, 2, 0, 500]),
        tiles=np.array([1, 3, 0, 2]),
        is_usable=np.array([True, True, False, True]),
        fits=np.array([True, True, False, False]),
    )


@pytest.fixture
def stats():
    made = SourceStats(
        name="photos",
        num_shards=2,
        num_samples=50,
        breaks=(BrokenPlace(shard="a.tar", offset=512, reason="cut off"),),
    )
    made.note(planned())
    return made


def test_samples_are_counted_by_their_fate(stats):
    assert (stats.num_planned, stats.num_unusable, stats.num_over_limit) == (4, 1, 1)


def test_lengths_are_of_usable_samples(stats):
    assert stats.tokens.counts == {10: 1, 20: 1, 999: 1}
    assert stats.targets.total == 503
    assert stats.tiles.max == 3


def test_packed_tokens_are_of_samples_that_fit(stats):
    assert (stats.num_packed_tokens, stats.num_packed_targets) == (30, 3)


def test_windows_add_up(stats):
    stats.note(planned())
    assert stats.num_planned == 8
    assert stats.tokens.counts[999] == 2
    assert stats.num_packed_tokens == 60


def test_pictures_are_counted_by_size(stats):
    stats.note_pictures(np.array([[640, 480], [640, 480], [0, 0], [480, 640]]))
    stats.note_pictures(np.empty((0, 2), dtype=np.int64))
    assert stats.picture_sizes == {(640, 480): 2, (480, 640): 1}
    assert stats.num_unread_pictures == 1


def test_json_holds_plain_values(stats):
    stats.note_pictures(np.array([[640, 480]]))
    told = json.loads(json.dumps(stats.to_json()))
    assert told["planned"] == 4
    assert told["unusable"] == 1
    assert told["over_limit"] == 1
    assert told["tokens"]["max"] == 999
    assert told["pictures"] == 1
    assert told["breaks"] == [{"shard": "a.tar", "offset": 512, "reason": "cut off"}]
    assert told["resolutions"] == [{"width": [512, 725], "height": [363, 512], "count": 1}]


def test_every_size_lies_in_its_range():
    edges = [*range(1, 300), 447, 448, 511, 512, 513, 724, 725, 1023, 1024, 4096, 10_000]
    for edge in edges:
        ((width, height), count), *rest = bin_sizes({(edge, 448): 3}).items()
        assert width[0] <= edge < width[1], (edge, width)
        assert height == (363, 512)
        assert (count, rest) == (3, [])


def test_ranges_join_without_gap():
    ranges = {width for edge in range(1, 2000) for (width, _) in bin_sizes({(edge, 1): 1})}
    ordered = sorted(ranges)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(ordered))
