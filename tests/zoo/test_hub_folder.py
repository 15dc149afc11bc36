"""A folder of the Hub is opened whole, and half a download is told from a whole one."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.zoo.hub_folder import open_hub_folder


@pytest.fixture
def folder(tmp_path):
    """Two shards with an index, a tokenizer, and what no one needs."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "llava"}))
    for number in (1, 2):
        save_file({f"w{number}": torch.arange(8.0)}, made / f"model-0000{number}.safetensors")
    index = {"weight_map": {f"w{n}": f"model-0000{n}.safetensors" for n in (1, 2)}}
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("tokenizer.json", "chat_template.jinja", "modeling.py", ".gitattributes"):
        (made / name).write_text(name)
    (made / "pytorch_model.bin").write_bytes(b"old")
    return made


def test_a_whole_folder_is_opened(folder):
    hub = open_hub_folder(folder)
    assert hub.model_type == "llava"
    assert [shard.name for shard in hub.shards] == [f"model-0000{n}.safetensors" for n in (1, 2)]
    assert hub.read_json("nothing.json") == {}
    assert hub.read_text("tokenizer.json") == "tokenizer.json"
    assert hub.read_text("nothing.txt") == ""


def test_weights_without_an_index_are_all_there_are(folder):
    (folder / "model.safetensors.index.json").unlink()
    assert len(open_hub_folder(folder).shards) == 2


def test_what_stands_beside_the_weights_is_copied_and_no_code(folder, tmp_path):
    link = folder / "generation_config.json"
    (tmp_path / "blob").write_text("{}")
    link.symlink_to(tmp_path / "blob")
    open_hub_folder(folder).copy_side_files(tmp_path / "beside")
    copied = {file.name for file in (tmp_path / "beside").iterdir()}
    assert copied == {
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    }
    assert not (tmp_path / "beside" / "generation_config.json").is_symlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: shutil.rmtree(f), "there is no such folder"),
        (lambda f: (f / "config.json").unlink(), r"holds no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "no keys and values"),
    ],
)
def test_what_is_no_model_is_refused(folder, harm, message):
    harm(folder)
    with pytest.raises(ConfigError, match=message):
        open_hub_folder(folder)


def cut(file):
    file.write_bytes(file.read_bytes()[:-4])


def append(file):
    file.write_bytes(file.read_bytes() + b"....")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "model-00002.safetensors").unlink(), "lacks 1 of 2 shards.*00002"),
        (lambda f: cut(f / "model-00001.safetensors"), "It was cut off"),
        (lambda f: append(f / "model-00001.safetensors"), "Something was added"),
        (lambda f: (f / "model-00001.safetensors").write_bytes(b"\x05"), "cut off in its header"),
        (
            lambda f: (f / "model-00001.safetensors").write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
            ),
            "a pointer of git-lfs",
        ),
        (lambda f: (f / "x.safetensors.incomplete").touch(), "half a download"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "names no shards"),
    ],
)
def test_half_a_download_is_refused(folder, harm, message):
    harm(folder)
    with pytest.raises(WeightsError, match=message):
        open_hub_folder(folder)


def test_weights_of_another_kind_are_named(folder):
    for file in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
        file.unlink()
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin: save it as safetensors"):
        open_hub_folder(folder)


def note(folder, shard, digest):
    metadata = folder / ".cache" / "huggingface" / "download" / f"{shard.name}.metadata"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"commit\n{digest}\n1.0\n")


def test_hashes_that_the_download_has_noted_are_compared(folder):
    shard = folder / "model-00001.safetensors"
    said = []
    note(folder, shard, hashlib.sha256(shard.read_bytes()).hexdigest())
    open_hub_folder(folder, say=said.append)
    assert "1 files" in said[0]
    note(folder, shard, "0" * 64)
    with pytest.raises(WeightsError, match="its content is another"):
        open_hub_folder(folder)
    assert open_hub_folder(folder, hashes=False).shards
    note(folder, shard, "no hash")
    assert open_hub_folder(folder).shards


def test_the_cache_names_files_by_their_hash(folder):
    shard = folder / "model-00001.safetensors"
    content = shard.read_bytes()
    blob = folder.parent / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    shard.unlink()
    shard.symlink_to(blob)
    said = []
    open_hub_folder(folder, say=said.append)
    assert said
    values = {"w1": torch.arange(8.0) + 1}
    save_file(values, blob)
    with pytest.raises(WeightsError, match="its content is another"):
        open_hub_folder(folder)
