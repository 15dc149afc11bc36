from types import SimpleNamespace

import pytest
from PIL import Image, ImageFilter

from mllm_npu.errors import ConfigError, DataError, RequestError
from mllm_npu.evaluate.runner import run_tasks
from mllm_npu.evaluate.similarity import compare_pictures
from mllm_npu.evaluate.tasks.reconstruction import Reconstruction
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.tiny import tiny_vision_encoder

OPTIONS = GenerationOptions(seed=3, guidance=1.5)


@pytest.fixture
def folder(fakes, tmp_path):
    for number in range(20):
        fakes.noise_picture(number).save(tmp_path / f"{number:02d}.png")
    return tmp_path


@pytest.fixture
def engine(fakes):
    """Gives every picture back as it was."""
    made = fakes.Oracle(None)
    made.max_batch = 8
    made.model = SimpleNamespace(vision_encoder=tiny_vision_encoder().eval())
    return made


def run(engine, folder, **values):
    task = Reconstruction(data=folder, engine=engine, options=OPTIONS, **values)
    [result] = run_tasks([task], engine)
    return result, {figure.name: figure for figure in task.figures(result.records)}


def test_equal_pictures_have_the_best_values(engine, folder):
    result, figures = run(engine, folder)
    assert [figure.name for figure in figures.values()] == [
        "reconstruction",
        "reconstruction/psnr",
        "reconstruction/features",
        "reconstruction/fid",
        "reconstruction/kid",
    ]
    assert figures["reconstruction"].value == 1.0
    assert figures["reconstruction/psnr"].value == 100.0
    assert figures["reconstruction/features"].value == pytest.approx(0, abs=1e-6)
    assert figures["reconstruction/fid"].value == pytest.approx(0, abs=1e-5)
    assert engine.redraws == [(8, 1.5), (8, 1.5), (4, 1.5)]
    assert engine.asked == []
    assert result.records[0].understood == "SSIM 1.000, PSNR 100.0 dB"
    assert result.records[0].example.name == "00.png"


def test_what_is_blurred_is_measured(engine, folder):
    def blur(pictures, options):
        return [picture.filter(ImageFilter.BoxBlur(1)) for picture in pictures]

    engine.redraw = blur
    result, figures = run(engine, folder, layers=[-1])
    pairs = [Image.open(folder / f"{number:02d}.png") for number in range(20)]
    wanted = [compare_pictures(p, p.filter(ImageFilter.BoxBlur(1))) for p in pairs]
    assert figures["reconstruction"].value == pytest.approx(
        sum(one["ssim"] for one in wanted) / 20, abs=1e-5
    )
    assert figures["reconstruction/psnr"].value == pytest.approx(
        sum(one["psnr"] for one in wanted) / 20, abs=1e-4
    )
    assert 0 < figures["reconstruction/features"].value < 4
    assert figures["reconstruction/features"].num == 20
    assert figures["reconstruction/fid"].value > 0
    assert "not LPIPS values" in figures["reconstruction/features"].citation
    assert result.records[0].score == pytest.approx(wanted[0]["ssim"])


def test_fid_is_left_out_where_pictures_are_too_few(engine, folder):
    for number in range(16, 20):
        (folder / f"{number}.png").unlink()
    _, figures = run(engine, folder)
    assert "reconstruction/fid" not in figures
    assert "reconstruction/kid" in figures
    _, figures = run(engine, folder, distances=[])
    assert list(figures)[-1] == "reconstruction/features"


def test_another_encoder_may_compare(engine, folder):
    engine.redraw = lambda pictures, options: [
        p.transpose(Image.Transpose.ROTATE_180) for p in pictures
    ]
    _, own = run(engine, folder)
    _, other = run(engine, folder, encoder=tiny_vision_encoder("dinov2"))
    assert own["reconstruction"] == other["reconstruction"]
    assert own["reconstruction/features"].value != other["reconstruction/features"].value


def test_a_picture_that_breaks_later_is_refused_and_the_others_are_not(engine, folder, fakes):
    (folder / "03.png").unlink()
    fakes.noise_picture(3, (64, 64)).save(folder / "03.jpg")
    whole = (folder / "03.jpg").read_bytes()
    (folder / "03.jpg").write_bytes(whole[: len(whole) // 2])
    result, figures = run(engine, folder)
    refused = [record for record in result.records if record.refused is not None]
    assert [record.example.name for record in refused] == ["03.jpg"]
    assert figures["reconstruction/psnr"].num == 19


def test_what_is_not_there_is_refused(engine, folder, tmp_path):
    with pytest.raises(DataError, match="nothing is there"):
        Reconstruction(data=tmp_path / "no", engine=engine, options=OPTIONS).examples()
    with pytest.raises(ConfigError, match=r"layer -5 .* it has 1"):
        Reconstruction(data=folder, engine=engine, options=OPTIONS, layers=[-5])


def test_a_model_that_cannot_draw_is_refused(engine, folder):
    engine.can_draw = False
    with pytest.raises(RequestError, match="reconstruction asks for pictures"):
        run(engine, folder)
    assert engine.redraws == []
