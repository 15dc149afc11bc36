"""The libraries that serving needs beyond those of the package; which of them are missing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from mllm_npu.errors import ConfigError

LIBRARIES: Mapping[str, str] = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "prometheus-client": "prometheus_client",
    "python-multipart": "python_multipart",
    "httpx": "httpx",
}
"""Name in the package index, and of the module; the extra ``serve`` brings them."""
EXIT_MISSING = 2


def check_libraries() -> None:
    """See that serving can be imported.

    Raises:
        ConfigError: a library is not installed.
    """
    missing = [name for name, module in LIBRARIES.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"Serving was asked for, {', '.join(missing)} is not installed. Install what it needs: "
            "pip install 'mllm-npu[serve]'"
        )


def require_libraries() -> None:
    """For a program that is run as a file: end it with one line where a library is missing."""
    try:
        check_libraries()
    except ConfigError as error:
        sys.stderr.write(f"ConfigError: {error}\n")
        sys.exit(EXIT_MISSING)
