"""Tabs: what one has, another does not see; a reload begins where the tab was."""

from mllm_npu.serve.page.conversation import Conversation
from mllm_npu.serve.page.tabs import Tabs

ONE = Conversation().ask("one")
TWO = Conversation().ask("two")
STRANGE = "0" * 32


def test_a_new_tab_is_empty_and_has_a_name_nobody_guesses():
    tabs = Tabs()
    first, second = tabs.open(), tabs.open()
    assert len({first, second}) == 2
    assert len(first) == 32
    tabs.put(first, "chat", ONE)
    assert tabs.get(first, "chat") == ONE
    assert tabs.get(first, "left") == tabs.get(second, "chat") == Conversation()


def test_a_reload_begins_with_what_there_was_and_a_copy_goes_its_own_way():
    tabs = Tabs()
    first = tabs.open()
    tabs.put(first, "chat", ONE)
    copied = tabs.open(first)
    tabs.put(copied, "chat", TWO)
    assert (tabs.get(first, "chat"), tabs.get(copied, "chat")) == (ONE, TWO)
    assert tabs.get(tabs.open("never given out"), "chat") == Conversation()


def test_a_tab_that_was_forgotten_goes_on():
    tabs = Tabs()
    tabs.put(STRANGE, "chat", ONE)
    assert tabs.get(STRANGE, "chat") == ONE


def test_what_is_no_name_is_passed_over():
    tabs = Tabs()
    for name in ("", "x", "0" * 31, "0" * 33, "G" * 32):
        tabs.put(name, "chat", ONE)
        assert tabs.get(name, "chat") == Conversation()
    assert len(tabs) == 0


def test_only_so_many_are_kept_those_used_last():
    tabs = Tabs(most=2)
    first, second = tabs.open(), tabs.open()
    tabs.put(first, "chat", ONE)
    tabs.put(second, "chat", ONE)
    tabs.put(first, "chat", TWO)
    tabs.open()
    assert len(tabs) == 2
    assert tabs.get(first, "chat") == TWO
    assert tabs.get(second, "chat") == Conversation()


def test_old_ones_are_forgotten():
    now = [0.0]
    tabs = Tabs(keep_seconds=10, clock=lambda: now[0])
    first = tabs.open()
    tabs.put(first, "chat", ONE)
    now[0] = 11.0
    tabs.open()
    assert len(tabs) == 1
