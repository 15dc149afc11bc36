"""Workers of one machine are on NPUs of their own, and answer there."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from mllm_npu.build import build_model
from mllm_npu.config import load_config
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.model_folder import save_model_folder

pytestmark = pytest.mark.slow
SECONDS = 120.0
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    make_digits(folder / "data", scale=0.02)
    config = load_config("training", [f"world_dir={folder / 'data'}", "name=tiny"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


def environment_of(port):
    """Variables of the process that was told to listen at a port."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            if "mllm_npu.serve.worker" in words and port in words:
                lines = (folder / "environ").read_text().split("\0")
                return dict(line.split("=", 1) for line in lines if line)
        except OSError:
            continue
    raise AssertionError(port)


def ask(url):
    message = {"role": "user", "content": "draw a seven"}
    body = {"model": "tiny", "messages": [message], "max_tokens": 2, "images": "force", "seed": 1}
    reply = httpx.post(
        f"{url}/v1/chat/completions",
        json={**body, "image_steps": 1},
        headers={"authorization": "Bearer none"},
        trust_env=False,
        timeout=SECONDS,
    )
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]


def test_three_workers_share_two_npus_in_turn_and_answer_alike(simulated, model, tmp_path):
    typed = ["serve", model, "--workers", "3", "--device", "npu", "--no-page", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mllm_npu.cli", *map(str, typed), "--json", "--logs", tmp_path],
        env=simulated.environment(more={"NPU_SIM_DEVICES": "2"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        addresses = json.loads(line)
        assert addresses["devices"] == ["npu:0", "npu:1", "npu:0"]
        ports = [url.rpartition(":")[2] for url in addresses["workers"]]
        assert [environment_of(port)[VISIBLE] for port in ports] == ["0", "1", "0"]
        replies = [ask(url) for url in addresses["workers"]]
        assert replies[0] == replies[1] == replies[2]
        assert replies[0]["images"]
    finally:
        process.terminate()
        said = process.communicate(timeout=SECONDS)[1]
    assert "3 workers share npu:0, npu:1, in turn" in said
    assert process.returncode == 0, said


def test_a_process_sees_the_npus_it_is_shown_and_no_more(simulated):
    code = "import torch; print(torch.npu.device_count())"
    for visible, count in (("3", 1), ("0,5,6", 3), ("", 8)):
        assert simulated.run_simulated("-c", code, env={VISIBLE: visible}).stdout == f"{count}\n"
