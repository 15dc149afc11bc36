import pytest
import torch
from torch import Generator

from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.sampling import chances, choose_tokens

SCORES = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def draw(scores, options, seed):
    return choose_tokens(scores, options=[options], generators=[Generator().manual_seed(seed)])[0]


def test_temperature_zero_takes_the_best():
    assert draw(SCORES.flip(0)[None], GenerationOptions(), 0) == 3


def test_top_k_keeps_the_best_k():
    kept = chances(SCORES, GenerationOptions(temperature=1.0, top_k=2))
    torch.testing.assert_close(kept, torch.tensor([0.625, 0.375, 0.0, 0.0]))


def test_top_p_keeps_the_token_that_crosses_it():
    kept = chances(SCORES, GenerationOptions(temperature=1.0, top_p=0.6))
    torch.testing.assert_close(kept, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    alone = chances(SCORES, GenerationOptions(temperature=1.0, top_p=1e-6))
    torch.testing.assert_close(alone, torch.tensor([1.0, 0.0, 0.0, 0.0]))


def test_top_p_and_top_k_work_on_any_order_of_scores():
    kept = chances(SCORES[[3, 1, 0, 2]], GenerationOptions(temperature=1.0, top_p=0.6, top_k=3))
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.375, 0.625, 0.0]))


def test_without_limits_nothing_is_dropped():
    scores = torch.linspace(0, -30, 50)
    assert bool((chances(scores, GenerationOptions(temperature=1.0)) > 0).all())


def test_a_low_temperature_sharpens():
    sharp = chances(SCORES, GenerationOptions(temperature=0.25))
    assert sharp[0] > 0.85
    assert sharp.sum() == pytest.approx(1.0)


def test_draws_follow_the_chances():
    generator = Generator().manual_seed(1)
    options = GenerationOptions(temperature=1.0)
    drawn = [
        choose_tokens(SCORES[None], options=[options], generators=[generator])[0]
        for _ in range(2000)
    ]
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / 2000
    torch.testing.assert_close(shares, SCORES.exp(), atol=0.04, rtol=0)


def test_what_is_forbidden_is_never_drawn():
    scores = torch.tensor([[-50.0, -torch.inf, -51.0]])
    options = GenerationOptions(temperature=5.0)
    assert {draw(scores, options, seed) for seed in range(200)} == {0, 2}
    assert draw(scores, GenerationOptions(), 0) == 0


def test_a_row_does_not_depend_on_the_others():
    scores = torch.randn(3, 20, generator=Generator().manual_seed(0))
    hot = GenerationOptions(temperature=1.5)
    together = choose_tokens(
        scores,
        options=[hot, GenerationOptions(), hot],
        generators=[Generator().manual_seed(seed) for seed in (5, 6, 7)],
    )
    alone = [draw(scores[:1], hot, 5), int(scores[1].argmax()), draw(scores[2:], hot, 7)]
    assert together == alone
