"""Values are gathered from several files, low-rank updates folded in, what does not fit refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mllm_npu.errors import WeightsError
from mllm_npu.models.lora import LoraRecipe
from mllm_npu.models.tiny import tiny_language_model
from mllm_npu.models.weight_values import split_part
from mllm_npu.models.weights import load_weights

RECIPE = LoraRecipe(rank=4, alpha=8, dropout=0.0, targets=["*.q_proj", "*.down_proj"])


@pytest.fixture
def adapted():
    """A language model with updates that matter, and what it says."""
    model = tiny_language_model().eval()
    RECIPE.apply(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def says(model):
    embeds = model.embed(torch.arange(9))
    return model(embeds, position_ids_T=torch.arange(9), sequence_ends=(9,)).detach()


def names_of_peft(model, *, old):
    """The names of a wrapped model, as peft before 0.6 or after it writes them."""
    found = {}
    for name, value in model.state_dict().items():
        name = name.replace("causal_lm.", "base_model.model.", 1)
        found[name.replace(".base_layer.", ".") if old else name] = value.clone()
    return found


@pytest.mark.parametrize("old", [True, False])
def test_updates_are_folded_in(adapted, tmp_path, old):
    torch.save(names_of_peft(adapted, old=old), tmp_path / "pytorch_model.bin")
    plain = tiny_language_model().eval()
    report = load_weights(plain, tmp_path, lora_alpha=8)
    torch.testing.assert_close(says(plain), says(adapted), atol=1e-5, rtol=1e-5)
    assert len(report.merged) == 4
    assert not report.missing + report.unexpected


def test_an_adapter_of_its_own_says_its_alpha(adapted, tmp_path):
    """The updates in one folder, the weights in another, in either order."""
    values = names_of_peft(adapted, old=True)
    adapter = {
        name.replace(".default", ""): value for name, value in values.items() if "lora" in name
    }
    base = {
        name.removeprefix("base_model.model."): value
        for name, value in values.items()
        if "lora" not in name
    }
    for folder, part in (("adapter", adapter), ("base", base)):
        (tmp_path / folder).mkdir()
        save_file(part, tmp_path / folder / "model.safetensors")
    sources = [tmp_path / "base", tmp_path / "adapter"]
    with pytest.raises(WeightsError, match="rank 4, and their alpha is not known"):
        load_weights(tiny_language_model(), sources)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    for order in (sources, sources[::-1]):
        plain = tiny_language_model().eval()
        load_weights(plain, order)
        torch.testing.assert_close(says(plain), says(adapted), atol=1e-5, rtol=1e-5)


def test_half_an_update_and_a_foreign_one_are_refused(adapted, tmp_path):
    values = names_of_peft(adapted, old=True)
    half = {name: value for name, value in values.items() if "lora_B" not in name}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="one half of the low-rank update"):
        load_weights(tiny_language_model(), tmp_path / "half.safetensors", lora_alpha=8)
    key = next(name for name in values if "lora_A" in name)
    values[key] = values[key][:, :-1].contiguous()
    save_file(values, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match="do not belong together"):
        load_weights(tiny_language_model(), tmp_path / "cut.safetensors", lora_alpha=8)


def test_updates_without_their_weights_are_unexpected(adapted, tmp_path):
    values = names_of_peft(adapted, old=True)
    key = next(name for name in values if name.endswith("q_proj.weight"))
    del values[key]
    save_file(values, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing.*1 unexpected.*low-rank update"):
        load_weights(tiny_language_model(), tmp_path / "x.safetensors", lora_alpha=8)


class Unet(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.unet = nn.Module()
        self.unet.conv_in = nn.Conv2d(channels, 4, 3)


def test_the_first_layer_of_an_editing_decoder_is_widened_with_zeros(tmp_path):
    plain, wide = Unet(4), Unet(8)
    torch.save(plain.state_dict(), tmp_path / "x.bin")
    report = load_weights(wide, tmp_path / "x.bin")
    assert report.reshaped == ("unet.conv_in.weight",)
    assert torch.equal(wide.unet.conv_in.weight[:, :4], plain.unet.conv_in.weight)
    assert wide.unet.conv_in.weight[:, 4:].abs().max() == 0
    assert torch.equal(wide.unet.conv_in.bias, plain.unet.conv_in.bias)
    torch.save(wide.state_dict(), tmp_path / "wide.bin")
    with pytest.raises(WeightsError, match=r"\[4, 8, 3, 3\].*\[4, 4, 3, 3\]"):
        load_weights(plain, tmp_path / "wide.bin")


def test_a_smaller_vocabulary_is_refused_with_both_numbers_unless_the_rows_come_later(tmp_path):
    model = tiny_language_model()
    values = {
        name.removeprefix("causal_lm."): value.clone()
        for name, value in model.state_dict().items()
        if "lm_head" not in name
    }
    small = values | {"model.embed_tokens.weight": values["model.embed_tokens.weight"][:60].clone()}
    save_file(small, tmp_path / "small.safetensors")
    message = r"\[60, 32\].*\[64, 32\].*differ by 4 rows.*vocab_size"
    with pytest.raises(WeightsError, match=message):
        load_weights(tiny_language_model(), tmp_path / "small.safetensors")
    save_file(
        {"model.embed_tokens.weight": values["model.embed_tokens.weight"]},
        tmp_path / "t.safetensors",
    )
    again = tiny_language_model()
    load_weights(again, [tmp_path / "small.safetensors", tmp_path / "t.safetensors"])
    torch.testing.assert_close(says(again), says(model))


def test_one_part_of_a_source_is_taken_alone(tmp_path):
    source, target = Unet(4), Unet(4)
    source.vae, target.vae = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(source.state_dict(), tmp_path / "x.bin")
    before = target.unet.conv_in.weight.clone()
    report = load_weights(target, f"{tmp_path}/x.bin@vae", strict=False)
    assert report.loaded == ("vae.bias", "vae.weight")
    assert torch.equal(target.vae.weight, source.vae.weight)
    assert torch.equal(target.unet.conv_in.weight, before)
    with pytest.raises(WeightsError, match=r"x\.bin@nowhere holds nothing"):
        load_weights(target, f"{tmp_path}/x.bin@nowhere", strict=False)
    assert split_part("a/b@c") == (Path("a/b"), "c")
    (tmp_path / "odd@name").touch()
    assert split_part(tmp_path / "odd@name") == (tmp_path / "odd@name", "")
