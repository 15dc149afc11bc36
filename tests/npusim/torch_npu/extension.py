"""Build the C++ part once per version of torch and of the sources, and load it."""

import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import torch

SOURCES = Path(__file__).with_name("csrc")
ENTRY = SOURCES / "extension.cpp"
NAME = "torch_npu._C"
FLAGS = ("-std=c++20", "-O1", "-g0", "-fPIC", "-shared", "-w")
SECONDS = 600.0


def load() -> ModuleType:
    """The compiled module; built first where it is not there yet.

    Raises:
        ImportError: it has to be built and there is no C++ compiler, or it does not compile.
    """
    folder = build_folder()
    library = folder / "npusim.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            # Other processes that want the same library wait here, and then find it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.is_file():
                build(library)
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(library))
    spec = importlib.util.spec_from_file_location(NAME, library, loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def build_folder() -> Path:
    """Where the library for this torch, this Python and these sources is.

    Below $NPU_SIM_BUILD, or in the user's cache.
    """
    digest = hashlib.sha256(repr((FLAGS, sys.version_info[:2])).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    name = f"npusim-{torch.__version__}-{digest.hexdigest()[:12]}"
    parent = os.environ.get("NPU_SIM_BUILD") or Path.home() / ".cache" / "mllm-npu"
    return Path(parent) / name


def compiler() -> str | None:
    """Path of the C++ compiler: $CXX, or the first one found; None where there is none."""
    candidates = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "c++", "clang++"]
    return next((path for path in map(shutil.which, candidates) if path), None)


def build(library: Path) -> None:
    """Compile the sources to ``library``, which appears only when it is complete."""
    program = compiler()
    if program is None:
        raise ImportError(
            "the simulated NPU has to be compiled and there is no C++ compiler. "
            "Install one, for example with apt-get install g++, or set CXX."
        )
    partial = library.with_suffix(f".{os.getpid()}.partial")
    command = [program, *FLAGS, *_torch_flags(), str(ENTRY), "-o", str(partial)]
    # The last argument names the libraries: a linker looks for symbols from left to right.
    command += ["-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if result.returncode:
        partial.unlink(missing_ok=True)
        raise ImportError(
            f"the simulated NPU does not compile with {program}:\n{result.stderr[-4000:]}"
        )
    partial.replace(library)


def _torch_flags() -> list[str]:
    installed = Path(torch.__file__).parent
    includes = (
        installed / "include",
        installed / "include/torch/csrc/api/include",
        Path(sysconfig.get_path("include")),
    )
    return [
        *(f"-isystem{folder}" for folder in includes),
        f"-L{installed / 'lib'}",
        f"-Wl,-rpath,{installed / 'lib'}",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-DTORCH_EXTENSION_NAME={NAME.rpartition('.')[2]}",
    ]
