"""Install the pinned Gradio beside a Pillow it does not allow yet.

Gradio asks for Pillow below 13; the tiles of pictures are pinned bit for bit with Pillow 13. The
page runs in a process of its own, and of Pillow it only opens and saves pictures. So Gradio is
installed without its needs, then its needs without Pillow. ``pip install mllm-npu[web]`` takes the
Pillow that Gradio allows instead.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterable

from check_install import CONSTRAINTS, pinned_version
from packaging.requirements import Requirement

OWN_CHOICE = frozenset({"pillow"})
"""Packages of which Gradio's bounds are not followed."""


def needs(requirements: Iterable[str]) -> list[str]:
    """Requirements that hold on this machine, without extras, markers and ``OWN_CHOICE``."""
    found = []
    for line in requirements:
        requirement = Requirement(line)
        if requirement.name.lower() in OWN_CHOICE:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            requirement.marker = None
            found.append(str(requirement))
    return found


def main() -> int:
    """Install into this interpreter's environment."""
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    version = pinned_version(CONSTRAINTS, "gradio")
    subprocess.run([*pip, "--no-deps", f"gradio=={version}"], check=True)
    wanted = needs(importlib.metadata.requires("gradio") or ())
    subprocess.run([*pip, "-c", str(CONSTRAINTS), *wanted], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
