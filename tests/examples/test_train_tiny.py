import pytest
from PIL import Image


@pytest.mark.slow
def test_three_stages_are_trained_and_the_model_answers(run_example, quiet, tmp_path):
    said = run_example(
        "train_tiny", "--steps", 2, "--scale", 0.03, "--out", tmp_path, *quiet, folder=tmp_path
    )
    assert "It reads:" in said
    for stage in ("vision", "mllm", "decoder"):
        assert (tmp_path / "digits" / stage / "model" / "model.yaml").is_file()
    with Image.open(tmp_path / "seven.png") as drawn:
        assert drawn.size == (16, 16)
