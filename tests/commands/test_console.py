"""A progress bar is silent where nobody watches."""

import logging

from mllm_npu.commands.console import bar, later


def test_a_bar_moves_and_prints_nothing_to_a_file(capsys):
    progress, move = bar("making")
    with progress:
        move(3, 10)
    [task] = progress.tasks
    assert (task.completed, task.total) == (3, 10)
    assert capsys.readouterr().err == ""


def test_parts_are_imported_when_they_are_needed():
    assert later("errors").ConfigError.__name__ == "ConfigError"


def test_libraries_that_are_not_used_here_are_not_heard(caplog):
    """They warn at start where torchao is installed, whatever command was typed."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).warning("kernels of another device")
    assert caplog.records == []
    logging.getLogger("torchao").error("something is wrong")
    assert len(caplog.records) == 1
