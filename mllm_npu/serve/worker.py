"""One model answering over HTTP: OpenAI's API, the original's, and word to a controller."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # Run as a file, Python looks for modules in this folder first; they are those of the package.
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).resolve().parent)]

from mllm_npu.errors import MllmNpuError
from mllm_npu.serve.libraries import check_libraries

if TYPE_CHECKING:
    from mllm_npu.serve.answerer import Answerer
    from mllm_npu.serve.limits import Limits
    from mllm_npu.serve.service import Service

DEFAULT_MODEL = Path("runs/digits")
DEFAULT_PORT = 40000
EXIT_REFUSED = 2
ENGINE_SHARE = 0.95
"""Of a request's time: a reply ends with what there is before it counts as late."""

DRAIN_SECONDS = 60.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="worker.py",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for every one")
    add("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    add("--model", type=Path, default=DEFAULT_MODEL, help="folder of a run, a stage or a model")
    add("--name", help="what clients call the model; else its own name")
    add("--model-version", default="1", help="tells apart two workers with one model")
    add("--device", default="auto", help="where the model runs; auto takes the best there is")
    add("--quantize", help="bfloat16, float16 or int8: keep the weights in fewer bytes")
    add("--controller", help="address of the controller; without it the worker stands alone")
    add("--worker", help="where the controller reaches this worker; else host and port")
    add("--token", help="shared with the controller; better in MLLM_NPU_WORKER_TOKEN")
    add("--api-keys", type=Path, help="file with one key a line; also in MLLM_NPU_API_KEYS")
    add("--allow-image-host", action="append", default=[], help="fetch pictures from this host")
    add("--slots", type=int, default=8, help="requests that are answered together")
    add("--prefix-gib", type=float, default=0.5, help="memory for questions that come again")
    add("--max-queue", type=int, default=64, help="requests that wait before one is refused")
    add("--max-new-tokens", type=int, default=4096, help="longest reply a request may ask for")
    add("--max-body-mb", type=int, default=32, help="largest request")
    add("--max-pixels", type=int, default=4096 * 4096, help="largest picture")
    add("--max-images", type=int, default=16, help="pictures in a request")
    add("--request-seconds", type=float, default=900.0, help="longest time for a reply")
    add("--drain-seconds", type=float, default=DRAIN_SECONDS, help="to finish after SIGTERM")
    return parser.parse_args(arguments)


def read_limits(asked: argparse.Namespace) -> Limits:
    """Limits of a request as they were asked for.

    Raises:
        ConfigError: one is not above 0.
    """
    limits = _later("limits").Limits
    return limits(
        max_body_bytes=asked.max_body_mb * 1024 * 1024,
        max_images=asked.max_images,
        max_pixels=asked.max_pixels,
        max_new_tokens=asked.max_new_tokens,
        max_queue=asked.max_queue,
        request_seconds=asked.request_seconds,
    )


def load_service(asked: argparse.Namespace) -> Service:
    """Load the model and put everything around it that its endpoints need.

    Raises:
        ConfigError: there is no such model, or it cannot answer.
        WeightsError: its weights do not fit.
    """
    limits = read_limits(asked)
    folders = importlib.import_module("mllm_npu.model_folder")
    engine, config = folders.load_engine(
        folders.find_model_folder(asked.model), asked.device, quantize=asked.quantize
    )
    live: Answerer = importlib.import_module("mllm_npu.inference.live_engine").LiveEngine(
        model=engine.model,
        processor=engine.processor,
        device=engine.device,
        max_slots=asked.slots,
        max_queue=limits.max_queue,
        max_seconds=ENGINE_SHARE * limits.request_seconds,
        prefix_gib=asked.prefix_gib,
    )
    card = _later("protocol").ModelCard(
        id=asked.name or config.name,
        version=asked.model_version,
        draws=engine.can_draw,
        max_tokens=engine.processor.max_tokens,
    )
    remote = _later("remote_pictures").RemotePictures
    app = _later("app")
    fetch = (
        remote(hosts=asked.allow_image_host, max_bytes=limits.max_body_bytes)
        if asked.allow_image_host
        else _later("pictures_in").refuse_addresses
    )
    service: Service = app.make_service(
        answerer=live,
        card=card,
        defaults=importlib.import_module("mllm_npu.build").build_part(config.generation),
        limits=limits,
        fetch=fetch,
    )
    return service


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a model and answer until a signal; a refusal is one line and exit code 2."""
    asked = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    try:
        check_libraries()
        security = _later("security")
        keys, token = security.read_keys(asked.api_keys), security.read_token(asked.token)
        service = load_service(asked)
    except MllmNpuError as error:
        return _refuse(error)

    try:
        asyncio.run(_run(service, asked, keys=keys, token=token))
    except MllmNpuError as error:
        return _refuse(error)
    finally:
        service.reception.answerer.close(drain=False)
    return 0


async def _run(
    service: Service, asked: argparse.Namespace, *, keys: Sequence[str], token: str | None
) -> None:
    server = _later("worker_server").WorkerServer(
        service,
        host=asked.host,
        port=asked.port,
        keys=keys,
        controller=asked.controller,
        url=asked.worker,
        token=token,
        drain_seconds=asked.drain_seconds,
    )
    await server.run()


def _refuse(error: MllmNpuError) -> int:
    sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
    return EXIT_REFUSED


def _later(module: str) -> Any:
    """Import a part when it is needed, so that ``--help`` does not wait for torch."""
    return importlib.import_module(f"mllm_npu.serve.{module}")


if __name__ == "__main__":
    sys.exit(main())
