"""The worker as a person starts it: a real model in a process of its own."""

import base64
import io
import json
import signal
import subprocess
import sys

import httpx
import openai
import pytest
from PIL import Image

from mllm_npu.build import build_model
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder
from mllm_npu.serve.worker import main, parse, read_limits


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = load_config("training", [f"world_dir={world}", "name=tiny"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def served(model, standing, root):
    """The worker's file, run as the documentation says, with a controller in front of it."""
    controller = standing.controller()
    command = [root / "mllm_npu/serve/worker.py", "--model", model, "--device", "cpu"]
    options = ["--controller", controller.url, "--drain-seconds", "20"]
    worker = standing.start("worker", [*command, *options])
    worker.wait_until(lambda it: it.get("/health").status_code == 200, "health")
    standing.wait_for(controller, 1)
    return controller, worker


def client_of(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1], ids=["controller", "worker"])
def test_a_real_model_answers_and_draws(served, place):
    server = served[place]
    with client_of(server) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "draw a seven"}]}
        drawing = {"images": "force", "image_steps": 2}
        reply = client.chat.completions.create(
            **asked, max_tokens=4, seed=1, extra_body=drawing, logprobs=True, top_logprobs=2
        )
        assert reply.usage.completion_tokens <= 4
        url = reply.choices[0].message.images[0]["image_url"]["url"]
        picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        assert picture.size == (16, 16)
        pieces = client.chat.completions.create(
            **asked, max_tokens=4, seed=1, stream=True, extra_body=drawing
        )
        streamed = "".join(
            piece.choices[0].delta.content or "" for piece in pieces if piece.choices
        )
        assert streamed == reply.choices[0].message.content
        drawn = client.images.generate(
            prompt="draw a seven", model="tiny", n=2, extra_body={"image_steps": 2, "seed": 1}
        )
        assert len({one.b64_json for one in drawn.data}) == 2


@pytest.mark.slow
def test_pictures_are_read_and_changed(served):
    _, worker = served
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), "white").save(stream, format="PNG")
    packed = base64.b64encode(stream.getvalue()).decode()
    with client_of(worker) as client:
        reply = client.images.edit(
            image=("a.png", stream.getvalue()), prompt="draw a seven", extra_body={"image_steps": 1}
        )
        assert reply.data[0].b64_json
    said = httpx.post(
        f"{worker.url}/worker_generate",
        json={"input_text": "which digit is this?", "image": packed, "max_new_tokens": 3},
        timeout=60,
    )
    chunks = [json.loads(chunk) for chunk in said.content.split(b"\0")[:-1]]
    assert chunks
    assert {chunk["error_code"] for chunk in chunks} == {0}


@pytest.mark.slow
def test_refusals_of_a_real_engine(served):
    _, worker = served
    with client_of(worker) as client:
        for words in ("", "   ", "seven " * 5000):
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": words}]
                )
        with pytest.raises(openai.BadRequestError, match="empty"):
            client.images.generate(prompt="  ")


@pytest.mark.slow
def test_sigterm_ends_it_in_good_order(served):
    controller, worker = served
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0, worker.log.read_text()
    controller.wait_until(lambda it: it.get("/health").json()["workers"] == 0, "farewell")


def run_file(root, *options):
    return subprocess.run(
        [sys.executable, root / "mllm_npu/serve/worker.py", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_help_and_refusals(root, tmp_path):
    shown = run_file(root, "--help")
    assert shown.returncode == 0
    assert "--controller" in shown.stdout
    assert "runs/digits" in shown.stdout
    refused = run_file(root, "--model", tmp_path)
    assert refused.returncode == 2
    assert "mllm-npu train" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "options", [["--max-images", "0"], ["--api-keys", "nowhere"], ["--model", "nowhere"]]
)
def test_what_cannot_be_is_refused(options, capsys):
    assert main(options) == 2
    assert "Error" in capsys.readouterr().err


def test_the_command_line():
    asked = parse(["--host", "0.0.0.0", "--port", "40000", "--worker", "http://localhost:40000"])
    assert (asked.host, asked.port, asked.worker) == ("0.0.0.0", 40000, "http://localhost:40000")
    assert parse([]).host == "127.0.0.1"
    assert parse([]).quantize is None
    assert parse(["--quantize", "int8"]).quantize == "int8"
    assert read_limits(parse(["--max-body-mb", "2"])).max_body_bytes == 2 * 2**20
