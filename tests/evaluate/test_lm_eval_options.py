"""What a task asks of a reply becomes generation options, or is refused."""

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lm-eval>=0.4.13'")

from mllm_npu.errors import RequestError
from mllm_npu.evaluate.lm_eval_options import read_wish


def read(**wishes):
    return read_wish(wishes, default_tokens=99, seed=5)


def test_nothing_asked_is_greedy_text():
    wish = read()
    assert (wish.options.max_new_tokens, wish.options.temperature) == (99, 0.0)
    assert (wish.options.images, wish.options.seed, wish.options.stop) == ("forbid", 5, ())
    assert not wish.samples


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens"])
def test_every_name_of_the_length_is_known(name):
    assert read(**{name: 7}).options.max_new_tokens == 7


def test_sampling_is_taken_over():
    wish = read(
        do_sample=True, temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, repetition_penalty=1.2
    )
    assert wish.samples
    options = wish.options
    assert (options.temperature, options.top_p, options.top_k) == (0.5, 0.9, 3)
    assert (options.min_p, options.repetition_penalty) == (0.1, 1.2)
    assert read(temperature=0.5).options.temperature == 0.5
    assert read(do_sample=False, temperature=0.5).options.temperature == 0.0


def test_a_reply_ends_at_the_first_stop_even_of_many():
    wish = read(until=["", "\n", *map(str, range(20))])
    assert wish.options.stop == ("\n", *map(str, range(15)))
    assert len(wish.stops) == 21
    assert wish.cut("ab19c") == "ab"
    assert wish.cut("ab") == "ab"
    assert read(until="Q:").options.stop == ("Q:",)
    assert read(until=None).options.stop == ()


def test_what_the_engine_does_not_do_is_refused():
    with pytest.raises(RequestError, match="length_penalty were asked for; known are do_sample"):
        read(length_penalty=2)
    with pytest.raises(RequestError, match="--gen_kwargs num_beams=1"):
        read(num_beams=4)
    assert read(num_beams=1).options.temperature == 0
    with pytest.raises(RequestError, match="top_p=3"):
        read(top_p=3)
