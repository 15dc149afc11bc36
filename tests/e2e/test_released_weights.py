"""A small SEED-X in the files and names of the released one is imported; it answers alike."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mllm_npu.build import build_model, build_part
from mllm_npu.cli import main
from mllm_npu.config import load_config
from mllm_npu.model_folder import load_model

SMALL = [
    "models/image_decoder=sdxl_tiny",
    "models.vision_encoder.tile_size=28",
    "models.vision_encoder.hidden_width=32",
    "models.vision_encoder.num_layers=1",
    "models.vision_encoder.num_heads=4",
    "models.vision_encoder.mlp_ratio=2.0",
    "models.vision_encoder.width=128",
    "models.vision_encoder.num_tokens=64",
    "models.vision_encoder.dtype=float32",
    "models.projector.num_queries=16",
    "models.projector.num_heads=4",
    "models.output_projector.num_queries=16",
    "models.output_projector.num_heads=4",
    "models.language_model.config.hidden_size=64",
    "models.language_model.config.intermediate_size=96",
    "models.language_model.config.num_hidden_layers=2",
    "models.language_model.config.num_attention_heads=4",
    "models.language_model.config.num_key_value_heads=4",
    "models.language_model.config.vocab_size=320",
    "models.language_model.vocab_size=330",
    "models.language_model.dtype=float32",
    "lora.rank=4",
    "lora.alpha=8",
    "generation.image_steps=2",
    "generation.max_new_tokens=4",
]


@pytest.fixture(scope="module")
def released(world, tmp_path_factory):
    """The folder ``pretrained`` as the original's page lays it out, and the model behind it."""
    root = tmp_path_factory.mktemp("released")
    folder = root / "pretrained"
    shutil.copytree(world / "tokenizer", folder / "tokenizer")
    config = load_config("model", ["workers=seedx", *settings(folder)])
    torch.manual_seed(0)
    model = build_model(config)
    build_part(config.lora).apply(model.language_model)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    write(model, folder)
    return folder, model


def settings(folder):
    weights = [
        "pytorch_model.bin",
        "qwen_vit_G.pt",
        "stable-diffusion-xl-base-1.0",
        "detokenizer/pytorch_model.bin",
    ]
    return [
        *SMALL,
        f"tokenizer.path={folder}/tokenizer",
        f"weights=[{','.join(f'{folder}/{name}' for name in weights)}]",
    ]


def write(model, folder):
    """The names of the original: peft 0.4 around the language model, norms saved twice."""
    whole, encoder, decoder, vae = {}, {}, {}, {}
    for name, value in model.state_dict().items():
        value = value.clone()
        if name.startswith("vision_encoder."):
            encoder[name.removeprefix("vision_encoder.")] = value
        elif name.startswith("image_decoder.vae."):
            vae[name.removeprefix("image_decoder.vae.")] = value
        elif name.startswith("image_decoder."):
            decoder[name.removeprefix("image_decoder.")] = value
        else:
            name = name.replace("causal_lm.", "base_model.model.").replace(".base_layer.", ".")
            part, _, last = name.rpartition(".")
            if part.endswith("norm"):
                whole[f"{part}.original_module.{last}"] = torch.zeros_like(value)
                name = f"{part}.modules_to_save.default.{last}"
            whole[name] = value
    for layer in range(2):
        key = f"language_model.base_model.model.model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        whole[key] = torch.ones(8)
    torch.save(whole, folder / "pytorch_model.bin")
    torch.save(encoder, folder / "qwen_vit_G.pt")
    (folder / "detokenizer").mkdir()
    torch.save(decoder, folder / "detokenizer" / "pytorch_model.bin")
    pipeline = folder / "stable-diffusion-xl-base-1.0"
    for part in ("unet", "vae"):
        (pipeline / part).mkdir(parents=True)
    (pipeline / "model_index.json").write_text("{}")
    save_file(vae, pipeline / "vae" / "diffusion_pytorch_model.safetensors")
    plain = {k.removeprefix("unet."): v + 1 for k, v in decoder.items() if k.startswith("unet.")}
    save_file(plain, pipeline / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module", params=["linked", "copied"])
def imported(released, tmp_path_factory, request):
    """The model folder the command makes, with and without a copy of the values."""
    folder, _ = released
    out = tmp_path_factory.mktemp(request.param) / "seedx"
    overrides = ["workers=seedx", *settings(folder), "processor.max_tokens=300"]
    copy = ["--copy"] if request.param == "copied" else []
    assert main(["zoo", "import", *overrides, "--out", str(out), *copy]) == 0
    return out


def test_the_command_says_what_became_of_the_weights(released, tmp_path, capsys):
    folder, _ = released
    overrides = ["workers=seedx", *settings(folder), "processor.max_tokens=300"]
    assert main(["zoo", "import", *overrides, "--out", str(tmp_path / "seedx")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "0 missing; 0 unexpected" in said
    assert "14 merged" in said  # seven matrices of two layers
    assert "7 unused" in said  # five norms from before the training, two rotary tables
    assert "replaced (image_decoder.unet." in said


def test_the_imported_model_computes_what_the_released_one_does(released, imported):
    _, original = released
    model, _, _ = load_model(imported)
    model.eval()
    ids = torch.arange(12)
    asked = {"position_ids_T": ids, "sequence_ends": (12,)}
    tiles = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        for part in (original, model):
            language = part.language_model
            part.found = (
                language.logits(language(language.embed(ids), **asked)),
                part.read(part.encode_tiles(tiles), torch.full((2, 2), 0.5)),
                part.draw(torch.ones(1, 16, 128), steps=2, guidance=2.0, generator=seeded()),
            )
    for mine, theirs in zip(model.found, original.found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def seeded():
    return torch.Generator().manual_seed(0)


def test_it_answers_and_draws_by_command(imported, tmp_path, capsys):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    typed = ["generate", str(imported), "what is this?", "--image", str(tmp_path / "red.png")]
    out = str(tmp_path / "drawn.png")
    assert main([*typed, "--draw", "--out", out, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["pictures"][0] == out or len(said["pictures"]) > 1
    with Image.open(said["pictures"][0]) as drawn:
        assert drawn.size == (32, 32)


def test_a_part_that_is_not_there_is_named(released, tmp_path, capsys):
    folder, _ = released
    overrides = [text for text in settings(folder) if not text.startswith("weights")]
    weights = f"weights=[{folder}/pytorch_model.bin,{folder}/qwen_vit_G.pt]"
    typed = ["zoo", "import", "workers=seedx", *overrides, weights, "--out", str(tmp_path / "x")]
    assert main([*typed, "processor.max_tokens=300"]) == 2
    error = capsys.readouterr().err
    assert "missing (image_decoder." in error
    assert not (tmp_path / "x").exists()


def test_a_projector_of_other_queries_than_the_prompts_is_refused(released, tmp_path, capsys):
    folder, _ = released
    typed = ["zoo", "import", "workers=seedx", *settings(folder), "--out", str(tmp_path / "x")]
    assert main([*typed, "processor.num_read_tokens=9", "processor.max_tokens=300"]) == 2
    assert "num_read_tokens=9 does not fit the model, which needs 16" in capsys.readouterr().err
