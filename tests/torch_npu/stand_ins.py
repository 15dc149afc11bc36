"""Build libraries that stand in for CANN: every function is there, and nearly all do nothing.

What the wheel's host code needs an answer from is in ``runtime.c``; every other function gives 0,
which means success. Kernels therefore compute nothing: values are those the memory had.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from wheel_symbols import Needs

RUNTIME = Path(__file__).with_name("runtime.c")
MAIN_LIBRARY = "libascendcl.so"
OPERATOR_LIBRARY = "libopapi.so"
_COMPILE = ("gcc", "-O1", "-w", "-fPIC", "-fno-builtin")
_TABLE_BYTES = 256


def build(needs: Needs, folder: Path) -> tuple[Path, ...]:
    """Compile everything the wheel asks for.

    Args:
        needs: from ``find_needs``.
        folder: where the libraries go, for LD_LIBRARY_PATH.

    Returns:
        The libraries.

    Raises:
        subprocess.CalledProcessError: the compiler refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runtime = folder / "runtime.o"
    _run(*_COMPILE, "-c", str(RUNTIME), "-o", str(runtime))
    written = set(_run("nm", "--defined-only", "--format=just-symbols", str(runtime)).split())
    functions = [name for name in needs.functions if name not in written]
    main = _link(folder, MAIN_LIBRARY, source(functions, needs.tables), str(runtime))
    operators = _link(folder, OPERATOR_LIBRARY, source(needs.operators, ()))
    # A library that is linked with the main one gives its functions too, also to who looks them up.
    others = [name for name in needs.libraries if name not in (MAIN_LIBRARY, OPERATOR_LIBRARY)]
    leans = ("-Wl,--no-as-needed", f"-L{folder}", f"-l:{MAIN_LIBRARY}", "-Wl,-rpath,$ORIGIN")
    return main, operators, *(_link(folder, name, "", *leans) for name in others)


def source(functions: Iterable[str], tables: Iterable[str]) -> str:
    """C text that defines names: functions that give 0, and empty type information."""
    lines = [f"long {name}(void) {{ return 0; }}" for name in functions]
    lines += [f"char {name}[{_TABLE_BYTES}];" for name in tables]
    return "\n".join(lines) + "\n"


def _link(folder: Path, name: str, text: str, *also: str) -> Path:
    file = folder / f"{name}.c"
    file.write_text(text)
    library = folder / name
    options = ("-shared", f"-Wl,-soname,{name}", "-o", str(library))
    _run(*_COMPILE, *options, str(file), *also)
    return library


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
