import json

import pytest

from mllm_npu.data.row import Row
from mllm_npu.data.worlds import digits
from mllm_npu.data.worlds.recipes import VERSIONS, check_data, require_world
from mllm_npu.data.worlds.world import WorldWriter
from mllm_npu.errors import DataError

PAPER = {"settings": {}, "counts": {}, "vocab_size": 300, "sha256": ""}


def write(folder, name, version):
    paper = {**PAPER, "name": name, "version": version}
    (folder / "world.json").write_text(json.dumps(paper))
    return folder


def test_todays_world_is_taken(tmp_path):
    assert require_world(write(tmp_path, "digits", digits.VERSION)).name == "digits"


def test_a_world_of_another_version_says_how_to_make_it_again(tmp_path):
    write(tmp_path, "scenes", VERSIONS["scenes"] - 1)
    with pytest.raises(DataError, match=rf"mllm-npu data scenes --out {tmp_path}"):
        require_world(tmp_path)


def test_a_world_of_ones_own_has_its_own_versions(tmp_path):
    assert require_world(write(tmp_path, "letters", 7)).version == 7


def test_what_was_left_half_made_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"world\.json cannot be read"):
        require_world(tmp_path)
    (tmp_path / "world.json").write_text("{")
    with pytest.raises(DataError, match=r"world\.json cannot be read"):
        require_world(tmp_path)


def test_training_takes_own_data_and_a_whole_world_of_this_version(tmp_path):
    check_data(tmp_path)
    check_data(write(tmp_path, "digits", digits.VERSION))
    with pytest.raises(DataError, match="of version 0"):
        check_data(write(tmp_path, "digits", 0))


def test_training_refuses_a_half_made_world(tmp_path):
    (tmp_path / "world.json.partial").touch()
    with pytest.raises(DataError, match=r"not finished.*Make it again"):
        check_data(tmp_path)


def test_making_a_world_marks_it_until_it_is_whole(tmp_path):
    writer = WorldWriter(folder=tmp_path, total=1)
    with pytest.raises(DataError, match="not finished"):
        check_data(tmp_path)
    row = Row(key="a", members={"json": b'{"caption": "a seven"}'})
    writer.write("caption", "train", [row])
    writer.finish(
        name="digits",
        version=digits.VERSION,
        settings={},
        splits={},
        vocab_size=300,
        num_slots=2,
        whole_words=[],
    )
    check_data(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, below):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="was to be written to"):
        WorldWriter(folder=blocked / below if below else blocked, total=1)
