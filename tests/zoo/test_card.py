"""Every card reads, composes, and says of its model what is so; a wrong key is named."""

import json
import shlex

import pytest
import torch

from mllm_npu.build import build_model
from mllm_npu.config import CONFIG_FOLDER, load_config
from mllm_npu.errors import ConfigError
from mllm_npu.shipped import SHIPPED_FOLDER, shipped_names
from mllm_npu.zoo.card import CARD_FOLDER, Card, card_names, find_card, read_card

WANTED = {
    *("seedx_pretrain", "seedx_instruct", "seedx_edit", "seedx_detokenizer"),
    *("mllm_npu_llama2_qwenvl_vit", "llava_1_5_7b", "llava_1_5_13b"),
    *("llava_next_llama3_8b", "llava_next_mistral_7b", "llava_next_qwen"),
    *("llava_onevision_qwen2_0_5b", "llava_onevision_qwen2_7b", "digits"),
}
SMALLEST = """\
name: small
title: Small
family: llava
summary: A model.
source: {hub: null, paper: null, repository: null}
licence: {weights: MIT}
parameters: null
config: null
commands: {}
"""


@pytest.fixture
def write(tmp_path):
    """A card file of this text."""

    def write_card(text, name="small"):
        (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{name}.yaml"

    return write_card


def build(card: Card):
    """The model of a card, without memory."""
    if card.name in shipped_names():
        from mllm_npu.config import read_config

        config = read_config(SHIPPED_FOLDER / card.name / "model.yaml", "model")
    else:
        config = load_config(card.config.root, card.config.overrides)
    with torch.device("meta"):
        return build_model(config)


def test_there_is_a_card_of_every_model():
    assert set(card_names()) >= WANTED
    assert set(shipped_names()) <= set(card_names())


@pytest.mark.parametrize("name", card_names())
def test_a_card_is_whole(name, root):
    card = find_card(name)
    assert card.title
    assert card.files
    assert card.commands.ask
    assert card.commands.train
    assert card.licence.weights
    assert [page for page in card.docs if not (root / page).is_file()] == []
    assert card.docs
    paths = [file.path for file in card.files]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("name", card_names())
def test_no_card_claims_what_nothing_printed(name):
    """A figure names the test or command that prints it, and a page of this project where it is."""
    card = find_card(name)
    for entry in (*card.parity, *card.quality, *card.memory, *card.speed):
        assert entry.by
        if entry.value is not None:
            assert entry.by.startswith(("pytest ", "mllm-npu ", "python benchmarks/")), entry


@pytest.mark.parametrize("name", [name for name in card_names() if find_card(name).config])
def test_a_card_names_configurations_that_are_there_and_its_parameters(name):
    card = find_card(name)
    for experiment in card.config.experiments:
        assert (CONFIG_FOLDER / "experiment" / f"{experiment}.yaml").is_file(), experiment
    counted = sum(parameter.numel() for parameter in build(card).parameters())
    assert card.parameters == counted


def test_the_files_of_a_card_are_added_up_where_all_are_known(write):
    files = "files:\n  - {path: a, size: 1500000}\n  - {path: b, gigabytes: 1.5}\n"
    assert read_card(write(SMALLEST + files)).gigabytes == pytest.approx(1.5015)
    assert read_card(write(SMALLEST + files + "  - {path: c}\n")).gigabytes is None
    small = "  - {path: c.json}\n"
    assert read_card(write(SMALLEST + files + small)).gigabytes == pytest.approx(1.5015)
    assert read_card(write(SMALLEST)).gigabytes is None


@pytest.mark.parametrize("name", card_names())
def test_half_floats_of_all_parameters_are_about_the_size_of_the_weights(name):
    """A check of what pages of the Hub say, where they say it of every shard."""
    card = find_card(name)
    shards = [file for file in card.files if file.path.startswith("model")]
    sizes = [file.gigabytes for file in shards if file.path.endswith(".safetensors")]
    if not sizes or None in sizes:
        return
    assert sum(sizes) == pytest.approx(2 * card.parameters / 1e9, abs=0.03)


@pytest.mark.parametrize("name", card_names())
def test_commands_that_name_overrides_compose(name):
    for command in find_card(name).commands.load:
        words = shlex.split(command)
        overrides = [word for word in words if "=" in word]
        assert words[:3] == ["mllm-npu", "zoo", "import"]
        if overrides:
            assert load_config("model", overrides).weights


def test_lists_become_what_cannot_change(write):
    card = read_card(write(SMALLEST + "notes: [one, two]\nfiles:\n  - path: a\n"))
    assert card.notes == ("one", "two")
    assert card.files[0].sha256 is None
    with pytest.raises(AttributeError):
        card.title = "other"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: Small", "titel: Small", "titel is no key of a Card. Did you mean 'title'?"),
        ("title: Small\n", "", "title is missing"),
        ("family: llava", "family: other", "family is 'other'. Give one of seedx, mllm"),
        ("parameters: null", "parameters: many", "Give a whole number or null"),
        ("commands: {}", "commands: null", "commands is None. Give the keys of a Commands"),
        ("commands: {}", "commands: {ask: talk}", "commands: ask is 'talk'. Give a list"),
        ("licence: {weights: MIT}", "licence: {}", "licence: weights is missing"),
        ("config: null", "config: {root: none}", "config: root is 'none'"),
        ("config: null", "config: [1]", "config is [1]. Give the keys of a CardConfig"),
        ("name: small", "name: other", "name is 'other'; a card is called as its file"),
        (SMALLEST, "- one\n", "expected keys and values"),
        (SMALLEST, "a: [", "is not a YAML file that can be read"),
    ],
)
def test_what_is_wrong_is_named(write, old, new, said):
    with pytest.raises(ConfigError) as refused:
        read_card(write(SMALLEST.replace(old, new)))
    assert "small.yaml" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("{path: ../a}", "leaves the model's folder"),
        ("{path: /a}", "leaves the model's folder"),
        ("{path: a, sha256: abc}", "is no SHA-256"),
        ("{path: a, bytes: 3}", "files[0]: bytes is no key of a CardFile"),
    ],
)
def test_a_wrong_file_is_named(write, file, said):
    with pytest.raises(ConfigError) as refused:
        read_card(write(f"{SMALLEST}files:\n  - {file}\n"))
    assert said in str(refused.value)
    assert str(refused.value).count("small.yaml") == 1


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError) as refused:
        find_card("llava_1_5_7")
    assert "Did you mean 'llava_1_5_7b'?" in str(refused.value)
    assert all(name in str(refused.value) for name in card_names())


def test_cards_travel_as_plain_values():
    from mllm_npu.zoo.card_table import card_json

    values = json.loads(json.dumps(card_json(find_card("digits"))))
    assert values["parameters"] == 1134625
    assert values["files"][0]["path"] == "model.safetensors"
    assert CARD_FOLDER.is_dir()
