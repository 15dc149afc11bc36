"""The table of releases, and what follows from it for a torch that is installed."""

import re

import pytest

from mllm_npu.device.doctor.releases import (
    RELEASES,
    compare_cann,
    fits,
    install_line,
    numbers,
    release_for,
    release_named,
)


@pytest.mark.parametrize(
    ("torch", "torch_npu", "fit"),
    [
        ("2.13.0+cpu", "2.13.0", True),
        ("2.9.0+cpu", "2.9.0.post9", True),
        ("2.13.0", "2.13.0+sim", True),
        ("2.13.1", "2.13.0", False),
        ("2.13.0", "2.12.0.post3", False),
        ("2.9.1", "2.9.0.post9", False),
    ],
)
def test_torch_npu_goes_with_one_torch(torch, torch_npu, fit):
    assert fits(torch=torch, torch_npu=torch_npu) is fit


def test_the_newest_release_for_a_torch_is_named():
    assert release_for("2.9.0+cpu").torch_npu == "2.9.0.post9"
    assert release_for("2.13.0").torch_npu == "2.13.0"
    assert release_for("2.99.0") is None


@pytest.mark.parametrize(
    ("torch_npu", "cann"),
    [
        ("2.9.0", "8.5.0"),
        ("2.9.0.post1", "8.5.0"),
        ("2.9.0.post2", "9.0.0"),
        ("2.9.0.post4", "9.0.0"),
        ("2.9.0.post12", "9.1.0"),
        ("2.12.0", "9.1.0"),
        ("2.13.0", None),
    ],
)
def test_a_release_that_is_not_in_the_table_counts_as_the_one_before(torch_npu, cann):
    assert release_named(torch_npu).cann == cann


def test_an_unknown_line_of_releases_has_no_row():
    assert release_named("2.1.0.post17") is None


def test_the_line_to_type_leaves_torch_alone_where_it_can():
    assert install_line("2.13.0+cpu") == "pip install --no-deps torch-npu==2.13.0"
    assert install_line("2.10.0") == "pip install --no-deps torch-npu==2.10.0.post7"
    assert install_line("2.13.7") == "pip install torch==2.14.0 torch-npu==2.14.0"


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ("8.5.0", "8.5.0", 0),
        ("8.3.RC1", "8.5.0", -1),
        ("8.3.RC1", "8.3.RC2", -1),
        ("8.3.RC2", "8.3.0", -1),
        ("8.5", "8.5.0", 0),
        ("9.1.0", "9.0.0", 1),
        ("9.2.0-beta.2", "9.1.0", 1),
    ],
)
def test_versions_of_cann_are_compared_by_number(first, second, order):
    assert compare_cann(first, second) == order
    assert compare_cann(second, first) == -order


def test_what_is_no_version_is_refused():
    with pytest.raises(ValueError, match="'latest' is not a version of CANN"):
        compare_cann("latest", "8.5.0")


def test_the_table_is_in_order_and_consistent():
    assert [row.torch for row in RELEASES] == sorted(
        (row.torch for row in RELEASES),
        key=lambda version: [int(part) for part in version.split(".")],
        reverse=True,
    )
    for row in RELEASES:
        assert re.fullmatch(r"\d+\.\d+\.\d+(\.post\d+)?", row.torch_npu)
        assert fits(torch=row.torch, torch_npu=row.torch_npu)
        assert row.python[0] < row.python[1]
        assert numbers(row.torch) == row.torch
