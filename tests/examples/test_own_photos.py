import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(["red", "green", "blue", "yellow"]):
        noise = np.random.default_rng(number).integers(0, 60, (40, 60, 3), dtype=np.uint8)
        picture = Image.new("RGB", (60, 40), colour)
        Image.blend(picture, Image.fromarray(noise), 0.2).save(folder / f"{colour}.jpg")
        (folder / f"{colour}.txt").write_text(f"a {colour} picture")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("a broken picture")
    return folder


def test_a_folder_becomes_shards_and_a_model(run_example, quiet, photos, tmp_path):
    out = tmp_path / "run"
    said = run_example("own_photos", photos, "--steps", 3, "--out", out, *quiet)
    assert "4 rows in 1 shards" in said
    stage = out / "photos" / "single"
    assert f"trained: {stage}" in said
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("samples") or line.get("loss") for line in lines)
    assert (stage / "model" / "model.yaml").is_file()
