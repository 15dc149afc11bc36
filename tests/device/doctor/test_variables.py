"""The table of variables says something of use about each."""

import re

from mllm_npu.device.doctor.variables import VARIABLES


def test_names_are_unique_and_look_like_variables():
    names = [row.name for row in VARIABLES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Z0-9_]+", name) for name in names)


def test_every_row_has_a_default_a_reason_and_something_to_type():
    for row in VARIABLES:
        assert row.default
        assert row.reason
        assert re.match(r"(export [A-Z0-9_]+=\S+|unset [A-Z0-9_]+)", row.advice), row.name
        assert row.name in row.advice


def test_what_is_advised_is_accepted():
    for row in VARIABLES:
        given = re.match(rf"export {row.name}=(\S+)", row.advice)
        if given and row.accepts:
            assert re.fullmatch(row.accepts, given.group(1), re.IGNORECASE), row.name


def test_a_default_nobody_should_keep_is_wanted():
    for row in VARIABLES:
        if row.is_wanted:
            assert not re.fullmatch(row.accepts, row.default, re.IGNORECASE), row.name
