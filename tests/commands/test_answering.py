"""Pictures are redrawn and measured from the command line."""

import json

import pytest
from PIL import Image

from mllm_npu.build import build_model
from mllm_npu.cli import main
from mllm_npu.config import load_config
from mllm_npu.model_folder import save_model_folder


@pytest.fixture(scope="module")
def model(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = load_config("training", [f"world_dir={world}"])
    save_model_folder(build_model(config), config, folder / "model")
    return folder / "model"


def test_redraw_saves_pictures_and_says_how_close_they_are(model, tmp_path, capsys):
    for name in ("a", "b"):
        Image.new("RGB", (20, 20), "white").save(tmp_path / f"{name}.png")
    sent = [str(tmp_path / f"{name}.png") for name in ("a", "b")]
    out = tmp_path / "out"
    assert main(["redraw", str(model), *sent, "--out", str(out), "--steps", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["sent"] for row in rows] == sent
    for row in rows:
        with Image.open(row["drawn"]) as drawn:
            assert drawn.size == (16, 16)
        assert row["psnr"] > 0
        assert -1 <= row["ssim"] <= 1
    assert main(["redraw", str(model), sent[0], "--out", str(out), "--steps", "1"]) == 0
    assert "PSNR" in capsys.readouterr().err


def test_nothing_to_redraw_is_refused(model, tmp_path, capsys):
    assert main(["redraw", str(model), str(tmp_path / "gone.png")]) == 2
    assert "gone.png" in capsys.readouterr().err
