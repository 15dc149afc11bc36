import numpy as np
import pytest
from scipy import linalg

from mllm_npu.errors import DataError
from mllm_npu.evaluate.feature_distance import frechet_distance, kernel_distance, num_needed
from mllm_npu.evaluate.feature_statistics import FeatureStatistics


def make_rows(num, width, seed, *, shift=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(num, width)) @ random.normal(size=(width, width))
    return (mixed * scale + shift).astype(np.float32)


def describe(rows):
    statistics = FeatureStatistics(width=rows.shape[1])
    statistics.add(rows)
    return statistics


def formula(a, b):
    """As it is written in the paper, with scipy's root of the product."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root = linalg.sqrtm(cov_a @ cov_b)
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(cov_a + cov_b - 2 * root.real))


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_fid_is_what_the_formula_gives(width):
    a = make_rows(3 * width + 5, width, 1, shift=3.0)
    b = make_rows(2 * width + 9, width, 2, scale=0.5)
    wanted = formula(a, b)
    assert frechet_distance(describe(a), describe(b)) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(describe(b), describe(a)) == pytest.approx(wanted, rel=1e-6)


def test_fid_of_one_dimension_by_hand():
    """Means 2 and 5, deviations 1 and 3: 3^2 + (3 - 1)^2."""
    a, b = np.array([[1], [2], [3]], np.float32), np.array([[2], [5], [8]], np.float32)
    assert frechet_distance(describe(a), describe(b)) == pytest.approx(9 + 4)


def test_fid_of_independent_features_by_hand():
    """Without correlation it is the sum over the dimensions."""
    square = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
    spread = np.sqrt(4 / 3)
    wanted = 3.0**2 + (2 * spread - spread) ** 2 + (5 * spread - spread) ** 2
    other = square * np.array([2, 5], np.float32) + np.array([3, 0], np.float32)
    assert frechet_distance(describe(square), describe(other)) == pytest.approx(wanted)


def test_fid_of_features_that_fill_no_space():
    """Two channels of three are copies: the product of the covariances is singular."""
    first = make_rows(40, 1, 1)
    second = make_rows(40, 1, 2, scale=2.0)
    a, b = np.repeat(first, 3, axis=1), np.repeat(second, 3, axis=1)
    wanted = 3 * frechet_distance(describe(first), describe(second))
    assert frechet_distance(describe(a), describe(b)) == pytest.approx(wanted, abs=1e-9)
    still = np.ones((40, 3), np.float32)
    assert frechet_distance(describe(still), describe(still)) == 0
    gap = frechet_distance(describe(still), describe(still * 3))
    assert gap == pytest.approx(3 * 2.0**2)


def test_a_set_has_no_distance_to_itself():
    rows = make_rows(300, 32, 3)
    assert frechet_distance(describe(rows), describe(rows)) == pytest.approx(0, abs=1e-8)
    shuffled = rows[np.random.default_rng(0).permutation(300)]
    assert frechet_distance(describe(rows), describe(shuffled)) == pytest.approx(0, abs=1e-8)


def test_fid_grows_with_the_shift():
    rows = make_rows(300, 8, 3)
    found = [frechet_distance(describe(rows), describe(rows + step)) for step in (0.0, 0.5, 2.0)]
    assert found[1] == pytest.approx(8 * 0.25, rel=1e-4)
    assert found[2] == pytest.approx(8 * 4.0, rel=1e-4)


def test_too_few_pictures_for_fid_are_refused_with_their_number():
    assert num_needed(16) == 17
    with pytest.raises(DataError, match=r"between 17 and 16 pictures.*width 16.*at least 17"):
        frechet_distance(describe(make_rows(17, 16, 1)), describe(make_rows(16, 16, 2)))
    with pytest.raises(DataError, match="widths 2 and 3"):
        frechet_distance(describe(make_rows(9, 2, 1)), describe(make_rows(9, 3, 2)))


def by_pairs(a, b):
    """The unbiased estimate, term by term."""
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    def within(rows):
        pairs = [(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(kernel(x, y) for x, y in pairs) / len(pairs)

    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return within(a) + within(b) - 2 * between


def test_kid_of_two_and_two_by_hand():
    """(1*2+1)^3 = 27 within, (0*0+1)^3 = 1 within, (0+1)^3 = 1 between: 27 + 1 - 2."""
    a, b = np.array([[1.0], [2.0]], np.float32), np.zeros((2, 1), np.float32)
    assert kernel_distance(a, b) == (pytest.approx(26.0), None)


def test_kid_is_the_sum_over_pairs():
    a, b = make_rows(12, 4, 1), make_rows(9, 4, 2, shift=0.5)
    value, deviation = kernel_distance(a, b)
    assert value == pytest.approx(by_pairs(a, b), rel=1e-9)
    assert deviation is None
    assert kernel_distance(b, a)[0] == pytest.approx(value)


def test_kid_is_taken_in_pieces(monkeypatch):
    a, b = make_rows(30, 4, 1), make_rows(20, 4, 2)
    whole = kernel_distance(a, b)[0]
    monkeypatch.setattr("mllm_npu.evaluate.feature_distance._PAIRS", 64)
    assert kernel_distance(a, b)[0] == pytest.approx(whole)


def test_kid_has_no_bias():
    """The mean over many pairs of small sets of one source is near zero, and some are below it."""
    one_source = np.random.default_rng(0).normal(size=(200, 2, 8, 3)).astype(np.float32)
    found = [kernel_distance(a, b)[0] for a, b in one_source]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))
    assert min(found) < 0


def test_kid_of_many_features_is_the_mean_over_subsets():
    random = np.random.default_rng(0)
    a = random.normal(size=(60, 3)).astype(np.float32)
    b = random.normal(size=(80, 3)).astype(np.float32) + 1
    value, deviation = kernel_distance(a, b, subset_size=20, num_subsets=50)
    assert value == pytest.approx(kernel_distance(a, b)[0], rel=0.3)
    assert 0 < deviation < value
    assert (value, deviation) == kernel_distance(a, b, subset_size=20, num_subsets=50)


def test_too_few_pictures_for_kid_are_refused():
    with pytest.raises(DataError, match=r"between 1 and 5 pictures.*at least 2"):
        kernel_distance(make_rows(1, 3, 1), make_rows(5, 3, 2))
    with pytest.raises(DataError, match="widths 3 and 2"):
        kernel_distance(make_rows(5, 3, 1), make_rows(5, 2, 2))
