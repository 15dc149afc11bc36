"""The web page of a controller: chat, drawing, editing and comparison in a browser."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if __name__ == "__main__":
    # Run as a file, Python looks for modules in this folder first; they are those of the package.
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).resolve().parent)]

from mllm_npu.errors import ConfigError, MllmNpuError

DEFAULT_CONTROLLER = "http://127.0.0.1:10000"
DEFAULT_PORT = 7860
KEY_VARIABLE = "MLLM_NPU_PAGE_KEY"
EXIT_REFUSED = 2
EXAMPLES = """\
examples:
  python mllm_npu/serve/gradio_app.py
  python mllm_npu/serve/gradio_app.py --controller http://127.0.0.1:10000 --port 7860
  python mllm_npu/serve/gradio_app.py --host 0.0.0.0 --api-key key.txt

Without --api-key the page shows the controller no key, and asks each person for one if the
controller wants it. With it, whoever reaches the page asks with that key.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="gradio_app.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)")
    add("--controller", default=DEFAULT_CONTROLLER, help="its address (default: %(default)s)")
    add("--api-key", type=Path, help=f"file with the page's key; also in {KEY_VARIABLE}")
    add("--drain", type=int, default=5, help="seconds that SIGTERM leaves replies")
    return parser.parse_args(arguments)


def read_key(file: Path | None, *, variables: Mapping[str, str] = os.environ) -> str | None:
    """The key that the page shows: from a file, else from the environment, else none.

    Raises:
        ConfigError: the file cannot be read, or holds no key.
    """
    if file is None:
        return variables.get(KEY_VARIABLE, "").strip() or None
    keys: tuple[str, ...] = importlib.import_module("mllm_npu.serve.security").read_keys(
        file, variables={}
    )
    return keys[0]


def check_url(url: str) -> str:
    """An address of a controller.

    Raises:
        ConfigError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"--controller={url} was asked for. Give an address such as {DEFAULT_CONTROLLER}."
        )
    return url


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until a signal; a refusal is one line and exit code 2."""
    asked = parse(arguments)
    try:
        key, url = read_key(asked.api_key), check_url(asked.controller)
        if importlib.util.find_spec("gradio") is None:
            raise ConfigError(
                "The page needs gradio, which is not installed. Install it: "
                "pip install 'mllm-npu[web]'"
            )
        with tempfile.TemporaryDirectory(prefix="mllm-npu-page-") as folder:
            _serve(asked, Path(folder), url=url, key=key)
    except MllmNpuError as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return EXIT_REFUSED
    return 0


def _serve(asked: argparse.Namespace, folder: Path, *, url: str, key: str | None) -> None:
    """Serve with files in a folder of their own, which goes with the page."""
    # Gradio reads these when it is imported. It must neither report nor leave files behind.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    server = _later("server")
    desk = make_desk(folder / "pictures", url=url, key=key)
    app = server.create_page(desk)
    server.run_page(app, host=asked.host, port=asked.port, drain_seconds=asked.drain)


def make_desk(folder: Path, *, url: str, key: str | None) -> Any:
    """What the page works with.

    Args:
        folder: for pictures.
        url: of the controller.
        key: that the page shows it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    controller = _later("client").Controller(url=url, key=key)
    return _later("desk").Desk(
        controller=controller,
        pictures=_later("pictures").PictureStore(folder),
        tabs=_later("tabs").Tabs(),
        running=_later("running").Running(),
        models=_later("models").Models(controller),
    )


def _later(module: str) -> Any:
    """Import a part when it is needed, so that ``--help`` is there at once."""
    return importlib.import_module(f"mllm_npu.serve.page.{module}")


if __name__ == "__main__":
    sys.exit(main())
