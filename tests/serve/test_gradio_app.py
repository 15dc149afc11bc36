"""The page's command: what it is told, what it refuses, and what it does not load."""

import subprocess
import sys
from pathlib import Path

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.serve import gradio_app
from mllm_npu.serve.gradio_app import check_url, main, make_desk, parse, read_key

FILE = Path(gradio_app.__file__)


def run(*command, code=0):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_defaults_stay_on_this_machine():
    asked = parse([])
    assert (asked.host, asked.controller) == ("127.0.0.1", "http://127.0.0.1:10000")
    assert asked.api_key is None


@pytest.mark.parametrize("command", [(FILE,), ("-m", "mllm_npu.serve.gradio_app")])
def test_help_has_examples(command):
    said = run(*command, "--help")
    assert "examples:" in said
    assert "--controller" in said
    assert "127.0.0.1:10000" in said


def test_the_page_loads_no_tensors():
    run("-c", "import sys, mllm_npu.serve.page.server; assert 'torch' not in sys.modules")


def test_gradio_is_loaded_only_when_it_is_needed():
    run("-c", "import sys, mllm_npu.serve.gradio_app; assert 'gradio' not in sys.modules")


def test_a_page_without_gradio_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(gradio_app.importlib.util, "find_spec", lambda _: None)
    assert main(["--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ConfigError: ")
    assert "pip install 'mllm-npu[web]'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("url", ["127.0.0.1:10000", "ftp://here", "http://", "nonsense"])
def test_what_is_no_address_is_refused(url, capsys):
    with pytest.raises(ConfigError, match="such as http"):
        check_url(url)
    assert main(["--controller", url]) == 2
    assert url in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:10000", "https://models.example/base"])
def test_an_address_is_taken_as_it_is(url):
    assert check_url(url) == url


def test_the_key_comes_from_a_file_or_the_environment(tmp_path):
    variables = {"MLLM_NPU_PAGE_KEY": " of-the-environment "}
    assert read_key(None, variables=variables) == "of-the-environment"
    assert read_key(None, variables={"MLLM_NPU_API_KEYS": "of-the-workers"}) is None
    (tmp_path / "key").write_text("# the page's\nof-the-file\n")
    assert read_key(tmp_path / "key", variables=variables) == "of-the-file"


def test_a_key_file_without_a_key_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        read_key(tmp_path / "none", variables={})
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError):
        read_key(tmp_path / "empty", variables={})


def test_a_desk_is_made_of_its_parts(tmp_path):
    desk = make_desk(tmp_path / "pictures", url="http://there:1", key=None)
    assert desk.controller.url == "http://there:1"
    assert desk.pictures.folder.is_dir()
