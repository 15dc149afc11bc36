"""Files of weights of every kind are opened without running what is in them."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mllm_npu.errors import WeightsError
from mllm_npu.models.weight_files import adapter_scale, open_values
from mllm_npu.models.weights import load_weights

VALUES = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def write(path, values):
    if path.suffix == ".safetensors":
        save_file(values, path)
    else:
        torch.save(values, path)


@pytest.mark.parametrize("ending", ["safetensors", "bin", "pt", "pth"])
def test_a_file_is_listed_and_read(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    write(path, VALUES)
    found = open_values(path)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (tuple(value.shape), value.dtype) for name, value in VALUES.items()
    }
    for name, value in found.items():
        assert torch.equal(value.read(), VALUES[name])


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_what_wraps_a_state_dict_is_taken_off(tmp_path, wrapper):
    torch.save({wrapper: VALUES, "epoch": 3}, tmp_path / "x.pt")
    assert set(open_values(tmp_path / "x.pt")) == set(VALUES)


def test_the_old_format_of_torch_is_read(tmp_path):
    torch.save(VALUES, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(open_values(tmp_path / "x.bin")["a.weight"].read(), VALUES["a.weight"])


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_are_one_checkpoint_and_a_lacking_one_is_named(tmp_path, ending):
    names = [f"model-0000{number}-of-00002.{ending}" for number in (1, 2)]
    index = {"weight_map": dict(zip(VALUES, names, strict=True))}
    (tmp_path / f"model.{ending}.index.json").write_text(json.dumps(index))
    for name, file in index["weight_map"].items():
        write(tmp_path / file, {name: VALUES[name]})
    write(tmp_path / f"stray.{ending}", {"stray": torch.ones(1)})
    assert set(open_values(tmp_path)) == set(VALUES)
    (tmp_path / names[1]).unlink()
    with pytest.raises(WeightsError, match=f"lacks 1 of 2 shards.*{names[1]}"):
        open_values(tmp_path)


def test_a_folder_prefers_safetensors_and_whole_precision(tmp_path):
    write(tmp_path / "model.safetensors", {"from": torch.ones(1)})
    write(tmp_path / "model.fp16.safetensors", {"half": torch.ones(1)})
    write(tmp_path / "pytorch_model.bin", {"bin": torch.ones(1)})
    assert set(open_values(tmp_path)) == {"from"}


def test_a_pipeline_of_diffusers_gives_its_unet_and_vae(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).mkdir()
        write(tmp_path / part / "diffusion_pytorch_model.safetensors", {"conv": torch.ones(1)})
    write(tmp_path / "sd_xl_base_1.0.safetensors", {"model.x": torch.ones(1)})
    assert set(open_values(tmp_path)) == {"unet.conv", "vae.conv"}


class Evil:
    """A pickle that would make a file when it is opened."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, old):
    proof = tmp_path / "proof"
    payload = {"a.weight": torch.ones(2), "evil": Evil(str(proof))}
    torch.save(payload, tmp_path / "x.bin", _use_new_zipfile_serialization=not old)
    with pytest.raises(WeightsError, match=r"more than tensors \(\S+open\), and it was not run"):
        open_values(tmp_path / "x.bin")
    with pytest.raises(WeightsError, match=r"x\.bin"):
        load_weights(nn.Linear(2, 2), tmp_path / "x.bin")
    assert not proof.exists()
    torch.load(tmp_path / "x.bin", weights_only=False)["evil"].close()
    assert proof.exists()  # it would have run


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path, ending, keep):
    path = tmp_path / f"x.{ending}"
    write(path, {"a": torch.zeros(10_000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else len(whole) * keep)])
    with pytest.raises(WeightsError, match="written and copied whole"):
        open_values(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!doctype html><html>", "web page"),
        (b"nonsense", "written and copied whole"),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_what_is_no_weights_is_named(tmp_path, content, message, ending):
    (tmp_path / f"x.{ending}").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_values(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsError, match="No weights were found"):
        open_values(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "x.bin")
    with pytest.raises(WeightsError, match="No weights were found"):
        open_values(tmp_path)


def test_the_factor_of_an_adapter(tmp_path):
    assert adapter_scale(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert adapter_scale(tmp_path) == adapter_scale(tmp_path / "adapter_model.bin") == 2
    (tmp_path / "adapter_config.json").write_text("[]")
    assert adapter_scale(tmp_path) is None
