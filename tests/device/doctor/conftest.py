"""A machine made up: folders as the installers of Ascend leave them, and packages as said."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

from mllm_npu.device.doctor import installation

INSTALL_INFO = """package_name=Ascend-cann-toolkit
version={version}
innerversion={family}SPC001B231
compatible_version=[V100R001C18],[V100R001C19],[V100R001C20],[V100R001C23]
arch=aarch64
os=linux
"""
DRIVER_INFO = """Version={version}
ascendhal_version=7.35.23
Innerversion={family}SPC002B212
compatible_version=[V100R001C19],[V100R001C20],[V100R001C21]
"""


class FakeMachine:
    """Writes what the installers write, below ``root`` and ``devices``."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "Ascend"
        self.devices = folder / "dev"
        self.devices.mkdir()

    def add_cann(self, version: str = "9.1.0", family: str = "V100R001C23") -> Path:
        home = self.root / "ascend-toolkit/latest"
        self.write(
            home / "aarch64-linux/ascend_toolkit_install.info", INSTALL_INFO, version, family
        )
        return home

    def add_driver(self, version: str = "25.3.rc1", family: str = "V100R001C23") -> Path:
        file = self.root / "driver/version.info"
        self.write(file, DRIVER_INFO, version, family)
        return file

    def add_devices(self, *names: str) -> None:
        for name in names:
            (self.devices / name).touch()

    @staticmethod
    def write(file: Path, text: str, version: str, family: str) -> None:
        file.parent.mkdir(parents=True)
        file.write_text(text.format(version=version, family=family))


@pytest.fixture
def fake_machine(tmp_path, monkeypatch) -> FakeMachine:
    """A machine without anything; nothing of the real one's shell is seen."""
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(name, raising=False)
    return FakeMachine(tmp_path)


@pytest.fixture
def packages(monkeypatch) -> Callable[..., None]:
    """Says which versions are installed; None takes a package away."""
    real = importlib.metadata.version

    def set_versions(**versions: str | None) -> None:
        def version(name: str) -> str:
            if name not in versions:
                return real(name)
            found = versions[name]
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(installation.importlib.metadata, "version", version)

    return set_versions
