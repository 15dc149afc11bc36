"""The project's files as the architecture tests read them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PRODUCT_FOLDERS = ("mllm_npu", "scripts", "demo", "benchmarks", "examples")


@dataclass(frozen=True)
class SourceFile:
    """One Python file: its path inside the project, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of everything imported, also inside functions.

        ``from a.b import c`` gives ``a.b.c``; imports under ``if TYPE_CHECKING`` count as well.
        """
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"

    def functions(self) -> Iterator[tuple[str, int]]:
        """Name and length in lines of every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, node.end_lineno - node.lineno + 1


def read_sources(*folders: str) -> list[SourceFile]:
    """Every Python file below the folders, sorted."""
    paths = sorted(path for folder in folders for path in (PROJECT / folder).rglob("*.py"))
    texts = [(str(path.relative_to(PROJECT)), path.read_text(encoding="utf-8")) for path in paths]
    return [SourceFile(path=path, text=text, tree=ast.parse(text, path)) for path, text in texts]


def parse_source(text: str, path: str = "example.py") -> SourceFile:
    """A file that exists only in a test, to show that a rule can fail."""
    return SourceFile(path=path, text=text, tree=ast.parse(text))


@pytest.fixture(scope="session")
def package() -> list[SourceFile]:
    """Every module of mllm_npu."""
    return read_sources("mllm_npu")


@pytest.fixture(scope="session")
def product() -> list[SourceFile]:
    """Every Python file that is not a test."""
    return read_sources(*PRODUCT_FOLDERS)


@pytest.fixture(scope="session")
def test_sources() -> list[SourceFile]:
    """Every Python file below tests/."""
    return read_sources("tests")


@pytest.fixture(scope="session")
def parse():
    """Makes a SourceFile of a text."""
    return parse_source
