"""A folder is what its card says, or the file at fault is named and what is wrong with it."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mllm_npu.errors import WeightsError
from mllm_npu.zoo.card import Card, CardFile, Commands, Licence, Source, find_card
from mllm_npu.zoo.card_check import check_folder, hash_file, safetensors_size

SHARD, INDEX, TEXT = "model-1.safetensors", "model.safetensors.index.json", "tokenizer.json"


@pytest.fixture
def folder(tmp_path):
    """A small release in the layout of the Hub."""
    save_file({"a": torch.arange(1000.0)}, tmp_path / SHARD)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": SHARD}}))
    (tmp_path / TEXT).write_text("{}")
    return tmp_path


@pytest.fixture
def card(folder):
    """Its card, which knows all of it."""
    return card_of(
        *(
            CardFile(
                path=name,
                size=(folder / name).stat().st_size,
                sha256=hash_file(folder / name),
            )
            for name in (SHARD, INDEX, TEXT)
        )
    )


def card_of(*files):
    return Card(
        name="release",
        title="A release",
        family="llava",
        summary="",
        source=Source(),
        licence=Licence(weights="MIT"),
        parameters=None,
        config=None,
        commands=Commands(get=("hf download me/release --local-dir release",)),
        files=files,
    )


def test_a_whole_folder_passes_and_its_bytes_are_counted(card, folder):
    moved = []
    found = check_folder(card, folder, progress=lambda done, total: moved.append((done, total)))
    total = sum(file.size for file in card.files)
    assert (found.num_files, found.num_hashed, found.num_bytes) == (3, 3, total)
    assert moved[-1] == (total, total)
    assert [done for done, _ in moved] == sorted(done for done, _ in moved)


def test_a_release_that_is_hardly_known_is_still_asked_itself(folder):
    card = card_of(CardFile(path=SHARD), CardFile(path=INDEX))
    assert check_folder(card, folder).num_hashed == 0
    cut(folder / SHARD, 100)
    with pytest.raises(WeightsError, match=r"as its header says, are expected. It was cut off"):
        check_folder(card, folder)


def cut(path, num_bytes):
    path.write_bytes(path.read_bytes()[:-num_bytes])


def test_a_missing_file_is_named_with_the_command_that_gets_it(card, folder):
    (folder / TEXT).unlink()
    with pytest.raises(WeightsError) as refused:
        check_folder(card, folder)
    assert f"{folder / TEXT} is missing" in str(refused.value)
    assert "hf download me/release" in str(refused.value)


def test_half_a_download_is_told_before_anything_is_hashed(card, folder):
    (folder / ".cache").mkdir()
    (folder / ".cache" / "model.incomplete").write_text("")
    with pytest.raises(WeightsError, match=r"half a download: .cache/model.incomplete"):
        check_folder(card, folder)


def test_a_file_that_was_cut_off_is_of_the_wrong_size(card, folder):
    cut(folder / SHARD, 1)
    with pytest.raises(WeightsError, match=f"{SHARD} has .* It was cut off"):
        check_folder(card, folder)


def test_a_longer_file_is_another_one(card, folder):
    (folder / TEXT).write_text("{    }")
    with pytest.raises(WeightsError, match=r"6 bytes, and 2 bytes are expected. It is another"):
        check_folder(card, folder)


def test_the_same_size_with_other_content_is_a_wrong_hash(card, folder):
    (folder / TEXT).write_text("[]")
    with pytest.raises(WeightsError, match=f"{TEXT} is of the right size, and its content"):
        check_folder(card, folder)


@pytest.mark.parametrize(("gigabytes", "passes"), [(0.0, True), (4.99, False)])
def test_a_rounded_size_leaves_room_for_rounding(folder, gigabytes, passes):
    card = card_of(CardFile(path=SHARD, gigabytes=gigabytes))
    if passes:
        assert check_folder(card, folder).num_files == 1
    else:
        with pytest.raises(WeightsError, match=r"about 4.99 GB are expected. It was cut off"):
            check_folder(card, folder)


def test_an_index_that_names_a_missing_shard_is_told(folder):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": SHARD, "b": "model-2.bin"}}))
    with pytest.raises(WeightsError, match=r"names 2 files, and 1 of them are missing: model-2"):
        check_folder(card_of(CardFile(path=SHARD)), folder)
    (folder / INDEX).write_text("half")
    with pytest.raises(WeightsError, match="cannot be read"):
        check_folder(card_of(CardFile(path=SHARD)), folder)


def test_no_folder_is_told(card, tmp_path):
    with pytest.raises(WeightsError, match="there is no such folder"):
        check_folder(card, tmp_path / "nowhere")


def test_a_header_says_how_long_its_file_is(folder):
    assert safetensors_size(folder / SHARD) == (folder / SHARD).stat().st_size
    for content in (b"", b"\x00" * 20, b"\xff" * 20, (100).to_bytes(8, "little") + b"{half"):
        (folder / "broken").write_bytes(content)
        assert safetensors_size(folder / "broken") is None


def test_a_card_without_commands_gives_no_advice(folder):
    digits = find_card("digits")
    with pytest.raises(WeightsError) as refused:
        check_folder(digits, folder)
    assert str(refused.value).endswith("not complete.")
