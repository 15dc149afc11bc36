import pytest
from PIL import Image


@pytest.mark.slow
def test_a_served_model_reads_and_draws(run_example, untrained, root, tmp_path):
    drawn = tmp_path / "drawn.png"
    said = run_example(
        "serve_and_call", untrained, "--picture", root / "demo" / "seven.png", "--out", drawn
    )
    assert "Which digit is this?" in said
    assert f"drawn: {drawn}" in said
    with Image.open(drawn) as picture:
        assert picture.size == (16, 16)


def test_a_model_that_is_not_there_is_told(run_example, tmp_path):
    with pytest.raises(AssertionError, match="nowhere was asked for"):
        run_example("serve_and_call", tmp_path / "nowhere")
