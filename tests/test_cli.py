import pytest

from mllm_npu import __version__
from mllm_npu.cli import main
from mllm_npu.errors import DataError


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["evaluate"], ["evaluate", "compare"], ["generate"], ["chat"], ["data"],
     ["data", "digits"], ["data", "scenes"], ["data", "index"], ["data", "pictures"], ["config"],
     ["doctor"], ["doctor", "parity"], ["evaluate", "lm-eval"],
     ["redraw"], ["serve"], ["tokenizer"], ["tokenizer", "add-tokens"], ["zoo"], ["zoo", "import"],
     ["zoo", "export"], ["zoo", "list"], ["zoo", "show"], ["zoo", "check"], ["zoo", "save"],
     ["zoo", "push"], ["zoo", "ship"], ["plan"]],
)  # fmt: skip
def test_every_command_explains_itself(command, capsys):
    assert main([*command, "--help"]) == 0
    assert "Usage: mllm-npu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("train", "experiment=digits"),
        ("serve", "mllm-npu serve runs/digits"),
        ("serve", "--api-keys keys.txt"),
        ("chat", "mllm-npu chat runs/digits"),
    ],
)
def test_examples_are_shown(command, example, capsys):
    main([command, "--help"])
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert example in shown


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_unknown_command_is_refused(capsys):
    assert main(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_refusal_is_one_line(capsys):
    assert main(["config", "+train.lrr=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ConfigError: train.lrr is not a setting of")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["nonsense"], "No such command 'nonsense'. See: mllm-npu --help"),
        (["redraw", "run"], "Missing argument"),
        (["generate", "run", "Hi", "--seed", "abc"], "See: mllm-npu generate --help"),
        (["train", "--foo"], "No such option: --foo. See: mllm-npu train --help"),
        (["evaluate", "run", "--limit", "0"], "--limit"),
    ],
)
def test_a_wrong_command_line_is_one_line_too(typed, message, capsys):
    assert main(typed) == 2
    error = capsys.readouterr().err
    assert error.startswith("UsageError: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_nothing_typed_shows_the_help(capsys):
    assert main([]) == 0
    assert "Usage: mllm-npu" in capsys.readouterr().out
    assert main(["data"]) == 2
    shown = capsys.readouterr()
    assert "digits" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["train", "experiment=nowhere"], "experiment/nowhere"),
        (["train", "train.max_steps=abc"], "train.max_steps='abc'"),
        (["train", "world_dir=nowhere"], "mllm-npu data"),
        (["generate", "nowhere", "Hi"], "nowhere"),
        (["generate", "nowhere", "Hi", "--out", "seven.txt"], "picture ending"),
        (["generate", "nowhere", "Hi", "--out", "file/deep/seven.png"], "cannot be written"),
        (["generate", "nowhere", "Hi", "--image", "gone.png"], "gone.png"),
        (["generate", "nowhere", "Hi", "--image", "file"], "cannot be decoded"),
        (["chat", "nowhere", "--out", "file"], "cannot be written"),
        (["evaluate", "file"], "mllm-npu train"),
        (["data", "digits", "--out", "file/world"], "was to be written to"),
        (["data", "scenes", "--out", "file"], "was to be written to"),
        (["data", "index", "file"], "file"),
    ],
)
def test_bad_input_is_one_line_exit_code_two_and_leaves_nothing(
    typed, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("this is no picture, no shard and no folder")
    assert main(typed) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_tree_of_files_stands_below_the_line(capsys, monkeypatch):
    error = DataError("Files were asked for, nothing\nis there.")
    error.add_note("quiz/\n└── test.csv")
    monkeypatch.setattr("mllm_npu.cli.app", lambda **_: _raise(error))
    assert main(["evaluate"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["DataError: Files were asked for, nothing is there.", "quiz/", "└── test.csv"]


def _raise(error):
    raise error
