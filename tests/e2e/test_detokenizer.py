"""A de-tokenizer is trained on a folder of pictures, swapped and edited with, by commands."""

import json
import shutil

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from mllm_npu.cli import main
from mllm_npu.model_folder import load_artist


def picture(number):
    """A disc somewhere on black."""
    drawn = Image.new("RGB", (32, 32))
    place = 4 + (number * 5) % 16
    ImageDraw.Draw(drawn).ellipse((place, place, place + 8, place + 8), fill=(250, 200, 60))
    return drawn


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("detokenizer")
    for kind in ("plain", "pairs"):
        (root / kind).mkdir()
    for number in range(12):
        picture(number).save(root / "plain" / f"{number}.png")
        picture(number).save(root / "pairs" / f"{number}.target.png")
        Image.new("RGB", (32, 32), "grey").save(root / "pairs" / f"{number}.source.png")
        (root / "pairs" / f"{number}.json").write_text(json.dumps({"instruction": "a disc"}))
    for kind in ("plain", "pairs"):
        out = str(root / "shards" / kind)
        assert main(["data", "pictures", str(root / kind), "--out", out]) == 0
    shutil.copytree(world / "tokenizer", root / "tokenizer")
    return root


def train(folder, name, kind, *overrides, steps=3):
    """Train a few steps; gives the stage folder."""
    typed = [
        f"tokenizer.path={folder}/tokenizer",
        f"output_dir={folder}/runs",
        f"name={name}",
        f"dataset.sources.0.shards={folder}/shards/{kind}/*.tar",
        "dataset.tokens_per_pack=160",
        f"train.max_steps={steps}",
        "tracker=[jsonl]",
        "threads=1",
    ]
    assert main(["train", *typed, *overrides]) == 0
    [stage] = (folder / "runs" / name).iterdir()
    return stage


@pytest.fixture(scope="module")
def full(folder):
    return train(folder, "full", "plain", "experiment=detokenizer/tiny", "fresh=[]", steps=30)


def weights(stage):
    return load_file(stage / "model" / "model.safetensors")


def changed(before, after):
    return {n for n in after if n in before and not torch.equal(before[n], after[n])}


def test_the_loss_falls_and_latents_are_kept(full):
    lines = [json.loads(line) for line in (full / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]


def test_pictures_are_redrawn_by_command(full, folder, capsys):
    out, sent = folder / "redrawn", str(folder / "plain" / "0.png")
    assert main(["redraw", str(full), sent, "--out", str(out), "--steps", "2", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    with Image.open(row["drawn"]) as drawn:
        assert drawn.size == (32, 32)
    assert row["psnr"] > 0


def test_cross_attention_alone_learns_on_a_fresh_resampler(full, folder):
    swapped = train(
        folder,
        "swapped",
        "plain",
        "experiment=detokenizer/tiny",
        "objective=detokenizer",
        f"initialise_from=[{full}/model]",
        "fresh=[image_decoder.resampler]",
    )
    moved = changed(weights(full), weights(swapped))
    assert any("attn2.to_k" in name for name in moved)
    parts = ("image_decoder.resampler.", "image_decoder.unet.")
    assert all(name.startswith(parts) for name in moved)
    unet = {name for name in moved if name.startswith("image_decoder.unet.")}
    assert all("attn2.to_k" in name or "attn2.to_v" in name for name in unet)


def test_low_rank_updates_are_folded_into_what_is_saved(full, folder):
    adapted = train(
        folder,
        "lora",
        "plain",
        "experiment=detokenizer/tiny",
        "objective=detokenizer_lora",
        "+lora=unet",
        f"initialise_from=[{full}/model]",
        "fresh=[]",
    )
    after = weights(adapted)
    assert not any("lora" in name for name in after)
    moved = {name for name in changed(weights(full), after) if ".unet." in name}
    assert moved
    assert all(".attn" in name for name in moved)


def test_an_editing_decoder_starts_from_a_plain_one(full, folder, capsys):
    edit = train(
        folder,
        "edit",
        "pairs",
        "experiment=detokenizer/tiny_edit",
        f"initialise_from=[{full}/model]",
        "fresh=[]",
    )
    assert weights(edit)["image_decoder.unet.conv_in.weight"].shape[1] == 8
    artist, _ = load_artist(edit / "model", device="cpu")
    assert artist.image_decoder.takes_condition
    sent, view = (str(folder / "pairs" / f"0.{kind}.png") for kind in ("target", "source"))
    typed = ["redraw", str(edit), sent, "--out", str(folder / "edited"), "--steps", "2"]
    assert main([*typed, "--change", view, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ssim"] <= 1
