"""A progress bar is silent where nobody watches."""

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
