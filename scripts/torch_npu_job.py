"""Try the package on the real extension of the accelerator, on a machine that has none.

The wheel of the extension is installed into a folder of its own, libraries that stand in for the
vendor's are made from what it asks for, and the checks in the folder of this job below ``tests``
run on them. Where the wheel cannot be had, the job says why and is content: torch_npu_job.py
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAME = Path(__file__).stem.removesuffix("_job")
PARTS = ROOT / "tests" / NAME
FOLDER = ROOT / f".venv-{NAME.replace('_', '-')}"
CHECK_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a check ended.

    Args:
        name: of its file.
        is_good: whether it came to its end.
        said: what it wrote; of a good one its last line counts.
        seconds: how long it took.
    """

    name: str
    is_good: bool
    said: str
    seconds: float

    def line(self) -> str:
        """One line, and all that was written where it failed."""
        told = (self.said.strip().splitlines() or [""])[-1]
        head = f"{'ok    ' if self.is_good else 'FAILED'} {self.name:<20} {self.seconds:5.1f} s"
        return f"{head}  {told}" if self.is_good else f"{head}\n{self.said.rstrip()}"


def environment(
    around: Mapping[str, str], *, site: Path, libraries: Path, also: Mapping[str, str]
) -> dict[str, str]:
    """Variables of a check's process: the wheel and the stand-ins are found, nothing is fetched.

    Args:
        around: variables of this process.
        site: folder the wheel lies in.
        libraries: folder of the stand-ins.
        also: what the extension is told.
    """
    paths = [str(site), str(ROOT), *filter(None, [around.get("PYTHONPATH")])]
    found = [str(libraries), *filter(None, [around.get("LD_LIBRARY_PATH")])]
    kept = {
        name: value
        for name, value in around.items()
        if name not in ("TORCH_DEVICE_BACKEND_AUTOLOAD", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    return {
        **kept,
        **also,
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_LIBRARY_PATH": os.pathsep.join(found),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def run_check(file: Path, variables: Mapping[str, str], *, seconds: float) -> Result:
    """Run one check in a process of its own; in bounded time."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, str(file)],
            env=dict(variables),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        is_good, said = done.returncode == 0, done.stdout
        if done.returncode < 0:
            said += f"\nended by signal {-done.returncode}"
    except subprocess.TimeoutExpired as error:
        is_good, said = False, f"{error.stdout or ''}\nnot ready after {seconds:.0f} s"
    return Result(name=file.stem, is_good=is_good, said=said, seconds=time.monotonic() - start)


def summary(results: Sequence[Result]) -> str:
    """All checks in one line."""
    failed = [result.name for result in results if not result.is_good]
    if failed:
        return f"{len(failed)} of {len(results)} checks failed: {', '.join(failed)}"
    return f"all {len(results)} checks passed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, run every check; 0 where all passed, or where the job cannot run here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", help="names of checks; all without any")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for wheel and stand-ins")
    asked = parser.parse_args(arguments)
    files = sorted(PARTS.glob("check_*.py"))
    if asked.checks:
        files = [file for file in files if file.stem.removeprefix("check_") in asked.checks]
    wheel, needs, stand_ins = (_part(name) for name in ("wheel_site", "wheel_symbols", "stand_ins"))
    try:
        site = wheel.prepare(asked.folder)
    except wheel.NotToBeHadError as error:
        _tell(f"skipped: {error}")
        return 0
    libraries = asked.folder / "libraries"
    start = time.monotonic()
    built = stand_ins.build(needs.find_needs(site.libraries), libraries)
    _tell(f"{NAME} {site.version}; {len(built)} stand-ins in {time.monotonic() - start:.1f} s")
    variables = environment(os.environ, site=site.folder, libraries=libraries, also=wheel.VARIABLES)
    results = []
    for file in files:
        results.append(run_check(file, variables, seconds=CHECK_SECONDS))
        _tell(results[-1].line())
    _tell(summary(results))
    return 0 if all(result.is_good for result in results) else 1


def _part(name: str) -> Any:
    """A module of this job's folder."""
    if str(PARTS) not in sys.path:
        sys.path.insert(0, str(PARTS))
    return importlib.import_module(name)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
