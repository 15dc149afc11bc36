import pytest

from mllm_npu.data.curriculum import Curriculum
from mllm_npu.errors import ConfigError

STAGES = (
    {"from_step": 0, "weights": {"caption": 1.0}},
    {"from_step": 100, "weights": {"caption": 1, "text": 2}},
)


def test_stages_begin_at_samples_and_unnamed_sets_weigh_nothing():
    curriculum = Curriculum(samples_per_step=24.5, stages=STAGES)
    assert curriculum.starts() == [0, 2450]
    assert curriculum.weights(0, ["text", "caption"]) == [0.0, 1.0]
    assert curriculum.weights(1, ["text", "caption"]) == [2.0, 1.0]


def test_an_unknown_data_set_is_named():
    with pytest.raises(ConfigError, match=r"weighs \['text'\], the data sets are \['caption'\]"):
        Curriculum(samples_per_step=1, stages=STAGES).weights(1, ["caption"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_per_step": 0}, "samples_per_step=0"),
        ({"stages": []}, "Begin with from_step: 0"),
        ({"stages": STAGES[1:]}, "Begin with from_step: 0"),
        ({"stages": [STAGES[0], STAGES[1], STAGES[1]]}, "in order"),
        ({"stages": [{"from_step": 0}]}, "Write"),
        ({"stages": [{"from_step": -1, "weights": {"a": 1}}]}, "Write"),
        ({"stages": [{"from_step": 0, "weights": {"a": "much"}}]}, "no numbers"),
        ({"stages": [{"from_step": 0, "weights": {"a": -1}}]}, "no numbers"),
        ({"stages": [{"from_step": 0, "weights": {"a": 0}}]}, "weighs nothing"),
        ({"stages": [{"from_step": 0, "weights": {"a": 1}, "x": 1}]}, "Write"),
    ],
)
def test_what_cannot_be_read_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Curriculum(**{"samples_per_step": 1, "stages": STAGES, **changes})
