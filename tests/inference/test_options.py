import pytest

from mllm_npu.errors import RequestError
from mllm_npu.inference.options import GenerationOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("guidance", float("nan")),
        ("guidance", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("seed", -1),
        ("images", "always"),
        ("image_steps", 0),
        ("guidance", -1.0),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("logprobs", -1),
        ("logprobs", 21),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name, value):
    with pytest.raises(RequestError, match=f"{name}={value!r} was asked for; give"):
        GenerationOptions(**{name: value})


def test_the_defaults_are_greedy_and_let_the_model_decide():
    options = GenerationOptions()
    assert (options.temperature, options.images, options.seed) == (0.0, "auto", 0)


def test_no_seed_is_allowed():
    assert GenerationOptions(seed=None).seed is None


@pytest.mark.parametrize("stop", ["", ("a", ""), ("a",) * 17, (3,)])
def test_stop_texts_that_make_no_sense_are_refused(stop):
    with pytest.raises(RequestError, match=r"stop=.* was asked for; give up to 16 texts"):
        GenerationOptions(stop=stop)


@pytest.mark.parametrize(("stop", "kept"), [("end", ("end",)), (["a", "b"], ("a", "b")), ((), ())])
def test_one_stop_text_is_a_list_of_one(stop, kept):
    assert GenerationOptions(stop=stop).stop == kept
