"""The digits model in the package is what its card says, draws and reads, and can be renewed."""

import json
import shutil
import stat

import pytest
import torch
from PIL import Image

from mllm_npu.config import read_config
from mllm_npu.data.worlds.digit_scans import DigitScans
from mllm_npu.errors import ConfigError, DataError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import load_engine, load_model
from mllm_npu.processing.conversation import ask
from mllm_npu.shipped import SHIPPED_FOLDER, shipped_names
from mllm_npu.zoo.card import CARD_FOLDER, find_card
from mllm_npu.zoo.card_check import check_folder
from mllm_npu.zoo.shipped_model import MARK, MOST_BYTES, read_report, ship_model

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def engine():
    return load_engine(SHIPPED_FOLDER / "digits", device="cpu")[0]


@pytest.fixture(scope="module")
def held_out():
    """Twenty scans that no training has seen, two of each digit, and what they show."""
    pytest.importorskip("sklearn", reason="the scans come with scikit-learn")
    scans = DigitScans()
    chosen = [
        number
        for digit in range(10)
        for number in [scan for scan in scans.ids["test"] if scans.digit(scan) == digit][:2]
    ]
    pictures = [Image.fromarray(scans.pixels[scan]).convert("RGB") for scan in chosen]
    return pictures, [scans.digit(scan) for scan in chosen]


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_model_is_what_its_card_says(name):
    card = find_card(name)
    found = check_folder(card, SHIPPED_FOLDER / name)
    assert found.num_hashed == found.num_files == len(card.files)
    on_disk = {
        path.relative_to(SHIPPED_FOLDER / name).as_posix()
        for path in (SHIPPED_FOLDER / name).rglob("*")
        if path.is_file()
    }
    assert on_disk == {file.path for file in card.files}
    assert found.num_bytes <= MOST_BYTES


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_model_names_no_place_of_a_machine(name):
    text = (SHIPPED_FOLDER / name / "model.yaml").read_text()
    assert ": /" not in text
    config = read_config(SHIPPED_FOLDER / name / "model.yaml", "model")
    assert config.weights is None
    assert config.tokenizer.path == "tokenizer"


def test_everybody_may_read_it():
    for path in (SHIPPED_FOLDER / "digits").rglob("*"):
        assert path.stat().st_mode & stat.S_IROTH, path


def test_it_reads_digits_it_has_never_seen(engine, held_out):
    pictures, labels = held_out
    questions = [ask("Which digit is this?", [picture]) for picture in pictures]
    replies = engine.reply_many(questions, GenerationOptions(max_new_tokens=8))
    right = [WORDS[label] in reply.text for reply, label in zip(replies, labels, strict=True)]
    assert sum(right) >= 18, [reply.text for reply in replies]


def test_it_draws_digits_that_it_reads_as_what_was_asked_for(engine):
    options = GenerationOptions(max_new_tokens=64, guidance=2.0)
    drawn = engine.reply_many([ask(f"Draw a {word}.", []) for word in WORDS], options)
    assert [len(reply.pictures) for reply in drawn] == [1] * 10
    again = engine.reply_many(
        [ask("Which digit is this?", [reply.pictures[0]]) for reply in drawn], options
    )
    right = [word in reply.text for word, reply in zip(WORDS, again, strict=True)]
    assert sum(right) >= 9, [reply.text for reply in again]


@pytest.fixture
def run(tmp_path):
    """A run with the shipped model in it, evaluated."""
    shutil.copytree(SHIPPED_FOLDER / "digits", tmp_path / "run" / "decoder" / "model")
    report = {
        "figures": {"comprehension_accuracy": 0.5, "train_seconds": 3.0, "other": 1},
        "details": [{"name": "comprehension_accuracy", "title": 'Which "digit"?', "value": 0.5}],
    }
    (tmp_path / "run" / "report.json").write_text(json.dumps(report))
    return tmp_path / "run"


@pytest.fixture
def places(tmp_path):
    """Folders of models and cards like those of the package."""
    (tmp_path / "models").mkdir()
    shutil.copytree(CARD_FOLDER, tmp_path / "cards")
    return {"models": tmp_path / "models", "cards": tmp_path / "cards"}


def test_a_run_is_shipped_with_its_hashes_and_figures(run, places):
    before = (places["cards"] / "digits.yaml").read_text()
    card = ship_model(run, "digits", **places)
    assert [(entry.what, entry.value) for entry in card.quality] == [('Which "digit"?', 0.5)]
    assert [entry.by for entry in card.speed] == ["mllm-npu train experiment=digits"]
    assert card.memory == ()
    assert check_folder(card, places["models"] / "digits").num_hashed == len(card.files)
    after = (places["cards"] / "digits.yaml").read_text()
    assert after.partition(MARK)[0] == before.partition(MARK)[0]
    shipped, kept = (
        load_model(folder / "digits")[0] for folder in (places["models"], SHIPPED_FOLDER)
    )
    assert torch.equal(shipped.projector.query, kept.projector.query)


def test_shipping_again_changes_nothing(run, places):
    ship_model(run, "digits", **places)
    once = (places["cards"] / "digits.yaml").read_text()
    ship_model(run, "digits", **places)
    assert (places["cards"] / "digits.yaml").read_text() == once
    assert [path.name for path in places["models"].iterdir()] == ["digits"]


def test_a_run_that_was_not_evaluated_is_not_shipped(run, places):
    (run / "report.json").unlink()
    with pytest.raises(DataError, match="mllm-npu evaluate"):
        ship_model(run, "digits", **places)
    (run / "report.json").write_text("[]")
    with pytest.raises(DataError, match="holds no figures"):
        read_report(run)
    assert not list(places["models"].iterdir())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("world_dir: data/digits", "world_dir: /data/digits", "a place of this machine"),
        ("weights: null", "weights: [/data/model.safetensors]", "refers to weights elsewhere"),
    ],
)
def test_what_needs_this_machine_is_not_shipped(run, places, old, new, said):
    file = run / "decoder" / "model" / "model.yaml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=said):
        ship_model(run, "digits", **places)


def test_what_is_too_large_or_has_no_card_is_not_shipped(run, places):
    with pytest.raises(ConfigError, match="Write the card of the model first"):
        ship_model(run, "other", **places)
    with (run / "decoder" / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(MOST_BYTES)
    with pytest.raises(ConfigError, match=f"at most {MOST_BYTES}"):
        ship_model(run, "digits", **places)
