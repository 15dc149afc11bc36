import pytest
from PIL import Image

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.encoder_features import EncoderFeatures
from mllm_npu.evaluate.feature_distance import frechet_distance, kernel_distance
from mllm_npu.evaluate.picture_distance import RealPictures, check_numbers, distance_figures
from mllm_npu.models.tiny import tiny_vision_encoder


@pytest.fixture
def features():
    return EncoderFeatures(encoder=tiny_vision_encoder().eval(), device="cpu", batch=8)


@pytest.fixture
def real(fakes, tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for number in range(20):
        fakes.noise_picture(number).save(folder / f"{number:02d}.png")
    return folder


def test_statistics_are_those_of_the_pictures(real, features):
    pictures = RealPictures(real, features)
    assert pictures.num == 20
    opened = [Image.open(path).convert("RGB") for path in sorted(real.iterdir())]
    wanted = features.describe(opened)
    assert pictures.statistics().mean_V == pytest.approx(wanted.mean_V)


def test_they_are_computed_once_where_a_file_is_named(real, features, tmp_path, monkeypatch):
    keep = tmp_path / "kept.safetensors"
    first = RealPictures(real, features, keep=keep).statistics()
    monkeypatch.setattr(features, "describe", None)
    again = RealPictures(real, features, keep=keep).statistics()
    assert again.rows() == pytest.approx(first.rows())


def test_a_file_of_other_pictures_or_another_encoder_is_refused(real, features, tmp_path, fakes):
    keep = tmp_path / "kept.safetensors"
    RealPictures(real, features, keep=keep).statistics()
    other = EncoderFeatures(encoder=tiny_vision_encoder().eval(), device="cpu")
    with pytest.raises(DataError, match="another encoder"):
        RealPictures(real, other, keep=keep).statistics()
    fakes.noise_picture(99).save(real / "99.png")
    with pytest.raises(DataError, match=r"of 20 pictures.*holds 21.*Delete the file"):
        RealPictures(real, features, keep=keep).statistics()


def test_a_missing_folder_is_refused_at_once(features, tmp_path):
    with pytest.raises(DataError, match="nothing is there"):
        RealPictures(tmp_path / "nowhere", features)


def test_too_few_pictures_are_refused_with_the_number_that_is_needed():
    with pytest.raises(DataError, match=r"16 real and 40 drawn.*width 16 need at least 17 of each"):
        check_numbers(["fid", "kid"], num_real=16, num_drawn=40, width=16)
    with pytest.raises(DataError, match=r"40 real and 16 drawn"):
        check_numbers(["fid"], num_real=40, num_drawn=16, width=16)
    check_numbers(["fid", "kid"], num_real=17, num_drawn=17, width=16)
    check_numbers(["kid"], num_real=2, num_drawn=2, width=16)
    with pytest.raises(ConfigError, match=r"\['is'\].*\['fid', 'kid'\]"):
        check_numbers(["is"], num_real=2, num_drawn=2, width=16)


def test_figures_are_the_distances(real, features, fakes):
    statistics = RealPictures(real, features).statistics()
    drawn = [fakes.noise_picture(number) for number in range(100, 130)]
    fid, kid = distance_figures(
        statistics, iter(drawn), name="draw", distances=["fid", "kid"], features=features
    )
    made = features.describe(drawn)
    assert (fid.name, fid.num, fid.level) == ("draw/fid", 30, 1)
    assert fid.value == pytest.approx(frechet_distance(statistics, made), abs=1e-5)
    assert (kid.name, kid.num, kid.standard_error) == ("draw/kid", 30, None)
    assert kid.value == pytest.approx(kernel_distance(statistics.rows(), made.rows())[0], abs=1e-6)
    assert "20 real pictures" in fid.title
    assert "not of Inception" in fid.citation


def test_a_short_look_leaves_out_what_it_has_too_few_pictures_for(real, features, fakes):
    statistics = RealPictures(real, features).statistics()

    def names(num):
        drawn = [fakes.noise_picture(number) for number in range(num)]
        figures = distance_figures(
            statistics, drawn, name="draw", distances=["fid", "kid"], features=features
        )
        return [figure.name for figure in figures]

    assert names(17) == ["draw/fid", "draw/kid"]
    assert names(16) == ["draw/kid"]
    assert names(1) == []


def test_the_spread_of_kid_is_told_where_there_are_subsets(real, features, fakes, monkeypatch):
    monkeypatch.setattr(
        "mllm_npu.evaluate.picture_distance.kernel_distance", lambda a, b: (0.25, 0.5)
    )
    [kid] = distance_figures(
        RealPictures(real, features).statistics(),
        [fakes.noise_picture(1), fakes.noise_picture(2)],
        name="draw",
        distances=["kid"],
        features=features,
    )
    assert (kid.value, kid.standard_error) == (0.25, 0.5)
    assert "± over 100 subsets of 1000" in kid.title
