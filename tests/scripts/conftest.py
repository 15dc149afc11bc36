"""Scripts are files, not a package: load one as a module."""

import importlib.util
import sys
from types import ModuleType

import pytest


@pytest.fixture
def load_script(root, monkeypatch):
    """Returns a function that imports scripts/<name>.py."""

    monkeypatch.syspath_prepend(root / "scripts")

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, root / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
