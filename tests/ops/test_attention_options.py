from dataclasses import FrozenInstanceError

import pytest
import torch

from mllm_npu.ops.attention_options import BandOptions, PackOptions, RowOptions, ScoreOptions


def test_all_have_the_options_of_scores_and_their_defaults():
    mask = torch.ones(2, 2, dtype=torch.bool)
    for options in (
        ScoreOptions(scale=0.3),
        PackOptions(scale=0.3),
        BandOptions(scale=0.3, left=None, right=0),
        RowOptions(scale=0.3, mask=mask, causal=False),
    ):
        assert isinstance(options, ScoreOptions)
        assert (options.scale, options.dropout, options.softcap) == (0.3, 0.0, None)


def test_what_a_query_sees_must_be_said_where_there_is_no_usual_answer():
    assert PackOptions(scale=1.0).window is None
    with pytest.raises(TypeError, match="right"):
        BandOptions(scale=1.0, left=None)
    with pytest.raises(TypeError, match="causal"):
        RowOptions(scale=1.0, mask=None)


def test_they_do_not_change():
    with pytest.raises(FrozenInstanceError):
        PackOptions(scale=1.0).window = 3


@pytest.mark.parametrize(
    ("window", "limit", "left"),
    [(None, None, None), (1, 1, 0), (7, 7, 6), (8, None, None), (100, None, None)],
)
def test_a_window_limits_only_sequences_that_are_longer(window, limit, left):
    options = PackOptions(scale=0.3, dropout=0.1, softcap=2.0, window=window)
    assert options.limit(8) == limit
    assert options.band(8) == BandOptions(scale=0.3, dropout=0.1, softcap=2.0, left=left, right=0)
