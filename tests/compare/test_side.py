"""Words on the command line are sides or overrides, and a side is one of four kinds."""

import pytest

from mllm_npu.compare.side import read_side, split_words
from mllm_npu.errors import ConfigError, DeviceError


def test_sides_and_overrides_may_be_mixed():
    words = ["cpu", "experiment=digits/mllm", "fused", "~models.projector", "+lora=unet"]
    assert split_words(words) == (
        ["cpu", "fused"],
        ["experiment=digits/mllm", "~models.projector", "+lora=unet"],
    )


def test_a_side_may_have_settings_of_its_own():
    word = "cpu,parallel.compute_dtype=bfloat16,objective.trainable=[a,b],++x.y=2"
    assert split_words([word]) == ([word], [])
    side = read_side(word)
    assert (side.word, side.kind) == ("cpu", "device")
    assert side.settings == (
        "parallel.compute_dtype=bfloat16",
        "objective.trainable=[a,b]",
        "++x.y=2",
    )
    assert str(side) == word


@pytest.mark.parametrize("word", ["fused", "reference"])
def test_ways(word):
    assert read_side(word).kind == "way"


def test_folders_and_records(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"")
    assert read_side(str(tmp_path)).kind == "folder"
    side = read_side(str(file))
    assert (side.kind, side.path) == ("record", file)


def test_what_means_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'runs/none' was asked for as a side; it is no device"):
        read_side("runs/none")
    other = tmp_path / "metrics.jsonl"
    other.write_text("")
    with pytest.raises(ConfigError, match="and is a file"):
        read_side(str(other))


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(DeviceError, match="this machine has"):
        read_side("npu")
