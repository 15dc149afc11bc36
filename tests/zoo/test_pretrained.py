"""Models of our own are saved as folders that travel, found by name, and pushed on request."""

import http.server
import json
import shutil
import socket
import threading

import pytest
import torch
from huggingface_hub import HfApi

from mllm_npu.build import build_model
from mllm_npu.config import load_config, read_config
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.model_folder import import_model, load_model, save_model_folder
from mllm_npu.shipped import SHIPPED_FOLDER
from mllm_npu.zoo import pretrained
from mllm_npu.zoo.model_card import CardFacts
from mllm_npu.zoo.pretrained import (
    find_pretrained,
    from_pretrained,
    push_to_hub,
    save_pretrained,
)

COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture
def saved(tmp_path):
    """The digits model with a card, as a folder that travels."""
    return save_pretrained("digits", tmp_path / "saved", facts=CardFacts(licence="apache-2.0"))


@pytest.fixture
def cache(tmp_path, monkeypatch, saved):
    """A cache of the Hub that holds me/digits."""
    home = tmp_path / "hub" / "models--me--digits"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    shutil.copytree(saved, home / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return home / "snapshots" / COMMIT


def test_a_name_is_ready_to_answer():
    model = from_pretrained("digits", device="cpu")
    drawn = model.ask("Draw a seven.")
    assert [picture.size for picture in drawn.pictures] == [(16, 16)]
    assert "seven" in model.ask("Which digit is this?", drawn.pictures, max_new_tokens=8).text
    assert model.options.guidance == 2.0
    assert model.folder == SHIPPED_FOLDER / "digits"
    assert model.config.name == "digits"


def test_a_saved_folder_is_the_same_model_and_travels(saved, tmp_path):
    moved = shutil.move(saved, tmp_path / "moved")
    (loaded, _, config), (shipped, _, _) = load_model(moved), load_model(SHIPPED_FOLDER / "digits")
    first, second = dict(loaded.named_parameters()), dict(shipped.named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert config.world_dir == "data/digits"
    page = (moved / "README.md").read_text()
    assert "license: apache-2.0" in page
    assert "value: 0.98333" in page  # what the card of the zoo knows of it
    assert str(tmp_path) not in page
    assert str(tmp_path) not in (moved / "model.yaml").read_text()


def test_weights_that_lie_elsewhere_are_written_into_it(world, tmp_path):
    composed = load_config("training", [f"world_dir={world}"])
    save_model_folder(build_model(composed), composed, tmp_path / "released")
    described = load_config(
        "model", [f"world_dir={world}", f"weights=[{tmp_path}/released/model.safetensors]"]
    )
    import_model(described, tmp_path / "run" / "model")
    out = save_pretrained(tmp_path / "run", tmp_path / "out")
    config = read_config(out / "model.yaml", "model")
    assert config.weights is None
    assert config.world_dir == f"data/{world.name}"
    shutil.rmtree(tmp_path / "released")
    assert load_model(out)[0].projector.query.shape == (4, 96)


def test_a_part_described_by_a_folder_brings_its_config_along(world, tmp_path):
    """The folder named in model.yaml need not be on the next machine."""
    settings = load_config("training", [f"world_dir={world}"]).models.language_model.config
    home = tmp_path / "llama"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(dict(settings)))
    composed = load_config(
        "training",
        [
            f"world_dir={world}",
            "models/language_model=folder",
            f"models.language_model.path={home}",
            "models.language_model.vocab_size=null",
        ],
    )
    with torch.device("meta"):
        model = build_model(composed)
    save_model_folder(model.to_empty(device="cpu"), composed, tmp_path / "model")
    out = save_pretrained(tmp_path / "model", tmp_path / "out")
    shutil.rmtree(home)
    assert read_config(out / "model.yaml", "model").models.language_model.path == (
        "parts/language_model"
    )
    loaded, _, config = load_model(out)
    assert loaded.language_model.width == settings.hidden_size
    assert config.models.language_model.path == str(out / "parts" / "language_model")


def test_nothing_is_written_over(saved):
    with pytest.raises(ConfigError, match="is there already"):
        save_pretrained("digits", saved)


def test_a_save_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_pretrained("digits", tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_id_is_read_from_the_cache_alone(cache, monkeypatch):
    monkeypatch.setattr(pretrained, "snapshot_download", fail)
    assert find_pretrained("me/digits") == cache
    assert from_pretrained("me/digits", device="cpu").folder == cache
    with pytest.raises(ConfigError, match="hf download me/other, or give allow_download=True"):
        find_pretrained("me/other")


def fail(*_, **__):
    raise AssertionError("the network was asked")


def test_an_id_is_fetched_when_it_is_allowed(cache, monkeypatch, saved):
    asked = []
    monkeypatch.setattr(
        pretrained,
        "snapshot_download",
        lambda hub_id, revision: asked.append((hub_id, revision)) or str(saved),
    )
    assert find_pretrained("me/other", revision="v1", allow_download=True) == saved
    assert asked == [("me/other", "v1")]
    assert find_pretrained("me/digits", allow_download=True) == cache
    assert len(asked) == 1


def test_a_download_that_fails_is_told(cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(pretrained, "snapshot_download", refuse)
    with pytest.raises(ConfigError, match="me/other cannot be got from the Hub: no route"):
        find_pretrained("me/other", allow_download=True)


def test_what_is_nothing_says_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"no model of the package \(digits\)"):
        find_pretrained("nothing")
    with pytest.raises(ConfigError, match="there is none"):
        find_pretrained(tmp_path)


def test_a_damaged_shipped_model_is_refused(monkeypatch, tmp_path):
    shutil.copytree(SHIPPED_FOLDER, tmp_path / "models")
    (tmp_path / "models" / "digits" / "model.yaml").write_text("name: other\n")
    monkeypatch.setattr(pretrained, "SHIPPED_FOLDER", tmp_path / "models")
    with pytest.raises(WeightsError, match=r"model\.yaml has 12 bytes"):
        find_pretrained("digits")


class Hub(http.server.BaseHTTPRequestHandler):
    """Enough of the Hub to take a small folder, or to refuse."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body))
        if self.server.refuses:
            return self.answer(401, {"error": "no token"})
        if self.path == "/api/repos/create":
            return self.answer(200, {"url": f"{self.server.url}/me/digits"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            return self.answer(200, {"files": modes})
        address = f"{self.server.url}/me/digits/commit/{COMMIT}"
        return self.answer(200, {"commitUrl": address, "commitOid": COMMIT})

    def do_GET(self):
        self.answer(200, {"id": "me/digits", "sha": COMMIT, "siblings": []})

    def answer(self, status, values):
        said = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A server of this machine in the place of the Hub."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.refuses = [], False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr(
        pretrained, "HfApi", lambda token: HfApi(endpoint=server.url, token=token or "hf_test")
    )
    yield server
    server.shutdown()
    server.server_close()


def test_a_saved_folder_is_pushed_whole(saved, hub):
    address = push_to_hub(saved, "me/digits", message="First")
    assert address == f"{hub.url}/me/digits/commit/{COMMIT}"
    created = json.loads(hub.asked[0][1])
    assert (created["name"], created["organization"]) == ("digits", "me")
    assert created["visibility"] == "private"
    commit = next(body for path, body in hub.asked if "/commit/" in path)
    lines = [json.loads(line) for line in commit.splitlines()]
    assert lines[0]["value"]["summary"] == "First"
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    files = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert sent == files
    assert {"README.md", "model.yaml", "model.safetensors"} <= sent


def test_a_refusal_of_the_hub_says_what_to_do(saved, hub):
    hub.refuses = True
    with pytest.raises(ConfigError, match="hf auth login"):
        push_to_hub(saved, "me/digits")


def test_a_hub_out_of_reach_is_told(saved, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    nowhere = HfApi(endpoint=f"http://127.0.0.1:{port}", token="hf_test")
    monkeypatch.setattr(pretrained, "HfApi", lambda token: nowhere)
    with pytest.raises(ConfigError, match="It must be in reach"):
        push_to_hub(saved, "me/digits")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("world_dir: data/digits", "world_dir: /data/digits"),
        ("weights: null", "weights: [/data/model.safetensors]"),
    ],
)
def test_what_tells_of_this_machine_is_not_pushed(saved, hub, old, new):
    file = saved / "model.yaml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match="mllm-npu zoo save"):
        push_to_hub(saved, "me/digits")
    assert hub.asked == []


def test_a_folder_without_a_card_and_a_wrong_name_are_not_pushed(saved, hub):
    with pytest.raises(ConfigError, match="is no name on the Hub"):
        push_to_hub(saved, "digits")
    with pytest.raises(ConfigError, match=r"has no README\.md"):
        push_to_hub(SHIPPED_FOLDER / "digits", "me/digits")
    assert hub.asked == []
