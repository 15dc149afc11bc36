"""What the documentation names exists: commands, options, paths, links, in both languages."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from mllm_npu.cli import main
from mllm_npu.config import CONFIG_FOLDER

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("README*.md", "CONTRIBUTING*.md", "docs/**/*.md", "data/*.md")
    for path in ROOT.glob(pattern)
)
PAIRS = (("README.md", "README_ZH.md"), ("CONTRIBUTING.md", "CONTRIBUTING_ZH.md"))
# Made by the commands the pages show, so not in a clone.
MADE_BY_COMMANDS = (
    "runs/",
    "data/digits",
    "data/scenes",
    "data/pictures",
    "data/edit",
    ".venv/",
    "shards/",
    "my/",
    "pretrained/",
)
GROUPS = ("data", "tokenizer", "zoo")
TWO_WORDS = ("doctor parity", "evaluate compare", "evaluate lm-eval")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)|<img src=\"([^\"]+)\"")
PATH = re.compile(
    r"(?:mllm_npu|docs|tests|scripts|demo|data|examples|benchmarks|runs|\.ci|\.venv)/[\w./*<>{}-]*"
)
SNIPPET = re.compile(r"^ *--8<-- \"([^\"]+)\"", re.MULTILINE)
OWN_FOLDERS = ("examples/", "benchmarks/", "scripts/", "demo/", "mllm_npu/")
GROUP_OPTION = re.compile(r"^\+?([a-z_]+(?:/[a-z_]+)*)=([a-z0-9_]+(?:/[a-z0-9_]+)*)$")


def command_lines(page: str) -> list[str]:
    """Lines of the page's bash blocks, joined where they end in a backslash, without comments."""
    blocks = [body for language, body in FENCE.findall(page) if language == "bash"]
    joined = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in joined]
    return [line for line in lines if line]


def code_pieces(page: str) -> list[str]:
    """Everything set as code: bash lines, and spans in the running text."""
    return command_lines(page) + CODE_SPAN.findall(FENCE.sub("", page))


def program_calls(page: str) -> list[list[str]]:
    """Arguments of each ``mllm-npu ...`` the page shows; placeholders stay as they are."""
    calls = []
    for piece in code_pieces(page):
        match = re.match(r"(?:\.venv/bin/)?mllm-npu(?: (.*))?$", piece)
        if match:
            calls.append(shlex.split(match.group(1) or "", comments=True))
    return calls


def command_of(call: list[str]) -> list[str]:
    """The words that name a command: ["data", "digits"] of ["data", "digits", "--out", "x"]."""
    is_long = (call[:1] and call[0] in GROUPS) or " ".join(call[:2]) in TWO_WORDS
    return call[:2] if is_long else call[:1]


def missing_options(overrides: list[str], folder: Path = CONFIG_FOLDER) -> list[str]:
    """Overrides that name a config group or option that is not there."""
    missing = []
    for override in overrides:
        match = GROUP_OPTION.match(override)
        if match is None:
            continue
        group, option = match.groups()
        is_group = "/" in group or (folder / group).is_dir()
        if is_group and not (folder / group / f"{option}.yaml").is_file():
            missing.append(override)
    return missing


def headings(page: str) -> int:
    """How many headings a page has outside its code."""
    return len(re.findall(r"^#{1,6} ", FENCE.sub("", page), re.MULTILINE))


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_page = pytest.mark.parametrize("path", PAGES, ids=identifier)


@pytest.fixture(scope="module")
def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@each_page
def test_make_targets_exist(path, targets):
    named = {
        name
        for piece in code_pieces(path.read_text(encoding="utf-8"))
        for name in re.findall(r"(?:^|[;&] *)make ([a-z-]+)", piece)
    }
    assert named <= targets


@each_page
def test_commands_and_their_flags_exist(path, capsys):
    for call in program_calls(path.read_text(encoding="utf-8")):
        assert main([*command_of(call), "--help"]) == 0, f"mllm-npu {' '.join(call)}"
        help_text = capsys.readouterr().out
        flags = [word.split("=")[0] for word in call if word.startswith("--")]
        assert [flag for flag in flags if flag not in help_text] == [], call


@each_page
def test_config_options_exist(path):
    pieces = code_pieces(path.read_text(encoding="utf-8"))
    words = [word for piece in pieces for word in piece.split()]
    assert missing_options(words) == []


@each_page
def test_documented_runs_compose(path, capsys):
    """Every train or config line that is shown as a command composes with its overrides."""
    for line in command_lines(path.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)
        if words[:2] in (["mllm-npu", "train"], ["mllm-npu", "config"]):
            overrides = [word for word in words[2:] if "=" in word]
            assert main(["config", *overrides]) == 0, capsys.readouterr().err


@each_page
def test_paths_exist(path):
    page = path.read_text(encoding="utf-8")
    named = [
        place for piece in CODE_SPAN.findall(FENCE.sub("", page)) for place in PATH.findall(piece)
    ]
    named = [place.rstrip(".") for place in named if not place.startswith(MADE_BY_COMMANDS)]
    literal = [place for place in named if not set("*<>{}") & set(place)]
    assert [place for place in literal if not (ROOT / place).exists()] == []


@each_page
def test_scripts_and_what_is_shown_of_files_exist(path):
    page = path.read_text(encoding="utf-8")
    scripts = [line.split()[1] for line in command_lines(page) if line.startswith("python ")]
    own = [script for script in scripts if script.startswith(OWN_FOLDERS)]
    shown = [name.partition(":")[0] for name in SNIPPET.findall(page)]
    assert [name for name in own + shown if not (ROOT / name).is_file()] == []


@each_page
def test_links_lead_somewhere(path):
    page = FENCE.sub("", path.read_text(encoding="utf-8"))
    links = [first or second for first, second in LINK.findall(page)]
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_languages_have_the_same_sections(english, chinese):
    first, second = ((ROOT / name).read_text(encoding="utf-8") for name in (english, chinese))
    assert headings(first) == headings(second)
    assert command_lines(first) == command_lines(second)


def test_both_languages_have_the_same_pages():
    english, chinese = (
        {str(path.relative_to(ROOT / "docs" / language)): path for path in pages}
        for language in ("en", "zh")
        for pages in [(ROOT / "docs" / language).rglob("*.md")]
    )
    assert english.keys() == chinese.keys()
    for name in english:
        first, second = (pages[name].read_text(encoding="utf-8") for pages in (english, chinese))
        assert headings(first) == headings(second), name
        assert command_lines(first) == command_lines(second), name


def test_the_floors_are_those_that_are_kept():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    kept = table["tool"]["importlinter"]["contracts"][0]["layers"]
    for language in ("en", "zh"):
        page = (ROOT / "docs" / language / "architecture.md").read_text(encoding="utf-8")
        listed = next(body for kind, body in FENCE.findall(page) if kind == "text")
        assert [re.split(r" {2,}", line)[0] for line in listed.splitlines()] == kept


def test_the_readmes_open_with_the_two_commands():
    for name in ("README.md", "README_ZH.md"):
        opening = (ROOT / name).read_text(encoding="utf-8")[:3000]
        assert "make demo" in opening
        assert "make test" in opening
        assert "docs/images/digits.png" in opening


def test_the_rules_can_fail(tmp_path):
    page = (
        "# Title\n```bash\n# a comment\nmllm-npu train experiment=nowhere \\\n  --fresh  # why\n"
        "```\n"
        "Run `mllm-npu data index 'shards/*.tar'` or `make tea`.\n```text\n# no heading\n```\n"
    )
    assert command_lines(page) == ["mllm-npu train experiment=nowhere    --fresh"]
    assert program_calls(page) == [
        ["train", "experiment=nowhere", "--fresh"],
        ["data", "index", "shards/*.tar"],
    ]
    assert [command_of(call) for call in program_calls(page)] == [["train"], ["data", "index"]]
    assert missing_options(["experiment=nowhere", "train.max_steps=3", "a/b=c"]) == [
        "experiment=nowhere",
        "a/b=c",
    ]
    assert headings(page) == 1
