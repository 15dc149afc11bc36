import numpy as np
import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.feature_statistics import (
    FeatureStatistics,
    load_statistics,
    save_statistics,
)


def make_rows(num=50, width=5, seed=0, shift=1000.0):
    """Features far from zero, where a sum of squares would lose their spread."""
    rows = np.random.default_rng(seed).normal(size=(num, width)) * np.arange(1, width + 1)
    return (rows + shift).astype(np.float32)


def describe(rows, *, sizes=(50,), keeps_rows=True):
    statistics = FeatureStatistics(width=rows.shape[1], keeps_rows=keeps_rows)
    start = 0
    for size in sizes:
        statistics.add(rows[start : start + size])
        start += size
    return statistics


def test_three_features_by_hand():
    statistics = describe(np.array([[1, 0], [3, 0], [5, 6]], np.float32), sizes=(1, 2))
    assert statistics.num == 3
    np.testing.assert_allclose(statistics.mean_V, [3, 2])
    np.testing.assert_allclose(statistics.covariance(), [[4, 6], [6, 12]])


@pytest.mark.parametrize("sizes", [(50,), (1,) * 50, (0, 7, 43), (25, 25)])
def test_it_does_not_matter_in_which_pieces_features_come(sizes):
    rows = make_rows()
    statistics = describe(rows, sizes=sizes)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(statistics.mean_V, wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(statistics.covariance(), np.cov(wide, rowvar=False), rtol=1e-10)
    np.testing.assert_array_equal(statistics.rows(), rows)


def test_parts_of_ranks_are_merged():
    rows = make_rows()
    first, second = describe(rows[:20], sizes=(20,)), describe(rows[20:], sizes=(30,))
    first.merge(second)
    first.merge(FeatureStatistics(width=5))
    whole = describe(rows)
    assert first.num == whole.num
    np.testing.assert_allclose(first.mean_V, whole.mean_V, rtol=1e-13)
    np.testing.assert_allclose(first.scatter_VV, whole.scatter_VV, rtol=1e-10)
    np.testing.assert_array_equal(first.rows(), rows)


def test_parts_that_differ_are_not_merged():
    with pytest.raises(DataError, match=r"width 3.*width 5.*Make both alike"):
        FeatureStatistics(width=5).merge(FeatureStatistics(width=3))
    with pytest.raises(DataError, match=r"kept: False.*kept: True"):
        FeatureStatistics(width=5).merge(FeatureStatistics(width=5, keeps_rows=False))


def test_features_of_another_width_or_without_a_value_are_refused():
    statistics = FeatureStatistics(width=2)
    with pytest.raises(DataError, match=r"\[N, 2\] were expected, got \[1, 3\]"):
        statistics.add(np.zeros((1, 3), np.float32))
    with pytest.raises(DataError, match="not finite"):
        statistics.add(np.array([[0, np.nan]], np.float32))
    assert statistics.num == 0


def test_rows_need_not_be_kept():
    statistics = describe(make_rows(), keeps_rows=False)
    assert "rows" not in statistics.state_dict()
    with pytest.raises(DataError, match="mean and scatter only"):
        statistics.rows()


@pytest.mark.parametrize("keeps_rows", [True, False])
def test_a_file_gives_back_what_was_saved(tmp_path, keeps_rows):
    statistics = describe(make_rows(), keeps_rows=keeps_rows)
    save_statistics(statistics, tmp_path / "new" / "real.safetensors")
    back = load_statistics(tmp_path / "new" / "real.safetensors")
    state, wanted = back.state_dict(), statistics.state_dict()
    assert set(state) == set(wanted)
    for name in wanted:
        np.testing.assert_array_equal(state[name], wanted[name])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["real.safetensors"]


def test_a_file_of_another_encoder_is_known(tmp_path):
    path, probe = tmp_path / "real.safetensors", np.array([3.0, 4.0], np.float32)
    save_statistics(describe(make_rows()), path, probe_V=probe)
    assert load_statistics(path, probe_V=probe * np.float32(1.02)).num == 50
    for other in ([4.0, 3.0], [3.0, 4.0, 0.0]):
        with pytest.raises(DataError, match="another encoder"):
            load_statistics(path, probe_V=np.array(other, np.float32))
    save_statistics(describe(make_rows()), path)
    with pytest.raises(DataError, match="another encoder"):
        load_statistics(path, probe_V=probe)


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "text").write_text("no tensors")
    for name in ("text", "missing"):
        with pytest.raises(DataError, match=r"cannot be read.*Compute the statistics again"):
            load_statistics(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written.*Choose another file"):
        save_statistics(describe(make_rows()), tmp_path / "file" / "below")


def test_a_state_must_be_whole_and_of_this_version():
    state = describe(make_rows()).state_dict()
    with pytest.raises(DataError, match="lack mean, num"):
        FeatureStatistics.from_state({k: v for k, v in state.items() if k not in ("num", "mean")})
    with pytest.raises(DataError, match="version 9, 1 is needed"):
        FeatureStatistics.from_state({**state, "version": np.array([9])})
    with pytest.raises(DataError, match="arrays of other shapes"):
        FeatureStatistics.from_state({**state, "rows": state["rows"][:3]})
