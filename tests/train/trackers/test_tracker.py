import pytest

from mllm_npu.config import load_config, plain
from mllm_npu.train.trackers.tracker import flatten


def test_flatten_joins_names():
    assert list(flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}})) == [
        ("a", 1.0),
        ("b/c", 2.0),
        ("b/d/e", 3.0),
    ]
    assert dict(flatten({"skipped": {"caption empty": 3}})) == {"skipped/caption empty": 3.0}


def chosen(*overrides):
    return plain(load_config("training", overrides)).get("train")["recorder"].get("trackers", {})


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["jsonl", "tensorboard"]),
        (["tracker=[jsonl]"], ["jsonl"]),
        (["tracker=[]"], []),
        (["tracker=[jsonl,wandb]", "experiment=digits/mllm"], ["jsonl", "wandb"]),
        (["experiment=digits/mllm"], ["jsonl", "tensorboard"]),
        (["tracker=[tensorboard,swanlab]", "train=published"], ["tensorboard", "swanlab"]),
    ],
)
def test_trackers_are_chosen_as_a_list(overrides, names):
    assert list(chosen(*overrides)) == names


def test_trackers_write_into_the_folder_of_the_stage():
    trackers = chosen("experiment=digits/mllm", "tracker=[jsonl,tensorboard,wandb,swanlab]")
    folders = {name: tracker["folder"] for name, tracker in trackers.items()}
    assert folders.pop("tensorboard") == "runs/digits/mllm/tensorboard"
    assert set(folders.values()) == {"runs/digits/mllm"}
    assert trackers["wandb"]["name"] == trackers["swanlab"]["name"] == "digits/mllm"


def test_the_number_of_batches_kept_is_that_of_the_fault_policy():
    config = load_config("training", ["+train.faults.most_dumps=3"])
    assert config.train.recorder.most_dumps == 3
    assert load_config("training").train.recorder.most_dumps == 10
