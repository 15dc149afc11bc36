"""What runs: one at a time in an area, stopped by session."""

import pytest

from mllm_npu.serve.page.running import Running


def test_one_at_a_time_in_each_area_of_each_session():
    running = Running()
    with running.begin("a", "chat") as first, running.begin("a", "chat") as second:
        assert first is not None
        assert second is None
        assert running.is_busy("a", "chat")
        with running.begin("a", "draw") as other, running.begin("b", "chat") as theirs:
            assert None not in (other, theirs)
            assert len(running) == 3
    assert len(running) == 0
    assert not running.is_busy("a", "chat")


def test_a_stop_reaches_an_area_or_a_whole_session():
    running = Running()
    begin = running.begin
    with begin("a", "chat") as chat, begin("a", "draw") as draw, begin("b", "chat") as theirs:
        running.stop("a", "draw")
        assert [each.is_set() for each in (chat, draw, theirs)] == [False, True, False]
        running.stop("a")
        assert [each.is_set() for each in (chat, draw, theirs)] == [True, True, False]


def test_what_is_over_is_over_also_after_a_failure():
    running = Running()
    with pytest.raises(KeyError), running.begin("a", "chat"):
        {}["nothing"]
    running.stop("a")
    with running.begin("a", "chat") as again:
        assert not again.is_set()
