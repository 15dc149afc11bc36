import math

import pytest
import torch
from torch import Generator

from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.sampling import chances, choose_tokens, penalise

SCORES = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def draw(scores, options, seed):
    generators = [Generator().manual_seed(seed)]
    return choose_tokens(scores, options=[options], generators=generators)[0].token_id


def kept_of(scores_C, **wishes):
    [kept_C] = chances(scores_C[None], [GenerationOptions(temperature=1.0, **wishes)])
    return kept_C


def slow_chances(scores_C, options):
    """Token by token, as the words say it."""
    weights = [math.exp(float(score) / options.temperature) for score in scores_C]
    chance = [weight / sum(weights) for weight in weights]
    order = sorted(range(len(chance)), key=lambda number: -chance[number])
    kept, before = [0.0] * len(chance), 0.0
    for place, number in enumerate(order):
        within_k = not options.top_k or place < options.top_k
        within_p = options.top_p == 1 or before < options.top_p
        if within_k and within_p and chance[number] >= options.min_p * chance[order[0]]:
            kept[number] = chance[number]
        before += chance[number]
    return torch.tensor([one / sum(kept) for one in kept])


def slow_penalty(scores_C, penalty, history):
    """As transformers words it."""
    out = scores_C.clone()
    for number in set(history):
        out[number] = out[number] * penalty if out[number] < 0 else out[number] / penalty
    return out


def test_temperature_zero_takes_the_best():
    assert draw(SCORES.flip(0)[None], GenerationOptions(), 0) == 3


def test_top_k_keeps_the_best_k():
    kept = kept_of(SCORES, top_k=2)
    torch.testing.assert_close(kept, torch.tensor([0.625, 0.375, 0.0, 0.0]))


def test_top_p_keeps_the_token_that_crosses_it():
    kept = kept_of(SCORES, top_p=0.6)
    torch.testing.assert_close(kept, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    alone = kept_of(SCORES, top_p=1e-6)
    torch.testing.assert_close(alone, torch.tensor([1.0, 0.0, 0.0, 0.0]))


def test_top_p_and_top_k_work_on_any_order_of_scores():
    kept = kept_of(SCORES[[3, 1, 0, 2]], top_p=0.6, top_k=3)
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.375, 0.625, 0.0]))


def test_without_limits_nothing_is_dropped():
    scores = torch.linspace(0, -30, 50)
    assert bool((kept_of(scores) > 0).all())


def test_a_low_temperature_sharpens():
    [sharp] = chances(SCORES[None], [GenerationOptions(temperature=0.25)])
    assert sharp[0] > 0.85
    assert sharp.sum() == pytest.approx(1.0)


def test_draws_follow_the_chances():
    generator = Generator().manual_seed(1)
    options = GenerationOptions(temperature=1.0)
    drawn = [
        choose_tokens(SCORES[None], options=[options], generators=[generator])[0].token_id
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
    assert [one.token_id for one in together] == alone


WISHES = [
    {"temperature": 0.7},
    {"temperature": 1.3, "min_p": 0.2},
    {"temperature": 1.0, "top_k": 5, "min_p": 0.05},
    {"temperature": 2.0, "top_p": 0.8},
    {"temperature": 0.9, "top_p": 0.7, "top_k": 9, "min_p": 0.1},
    {"temperature": 1.0, "min_p": 1.0},
]


def test_all_limits_of_all_rows_at_once_are_what_the_words_say():
    scores = torch.randn(len(WISHES), 30, generator=Generator().manual_seed(1)) * 2
    options = [GenerationOptions(**wish) for wish in WISHES]
    for kept, score, wish in zip(chances(scores, options), scores, options, strict=True):
        torch.testing.assert_close(kept, slow_chances(score, wish), atol=1e-6, rtol=1e-5)


def test_repetition_is_penalised_as_the_words_say_and_for_who_asked():
    scores = torch.randn(4, 12, generator=Generator().manual_seed(2))
    scores[1, 3] = -torch.inf
    options = [GenerationOptions(repetition_penalty=p) for p in (1.0, 1.7, 0.5, 3.0)]
    histories = [[1, 2], [3, 5, 5, 1], [11], []]
    found = penalise(scores, options, histories)
    for row, (wish, history) in enumerate(zip(options, histories, strict=True)):
        truth = slow_penalty(scores[row], wish.repetition_penalty, history)
        assert torch.equal(found[row], truth)
    chosen = choose_tokens(
        torch.tensor([[2.0, 1.5, 0.0]]),
        options=[GenerationOptions(repetition_penalty=2.0)],
        generators=[Generator()],
        histories=[[0]],
    )
    assert chosen[0].token_id == 1


def test_how_likely_a_token_was_is_told_before_what_samples():
    scores = torch.randn(3, 9, generator=Generator().manual_seed(3))
    scores[0, 4] = scores[2, 1:8] = -torch.inf
    options = [
        GenerationOptions(logprobs=2, temperature=9.0, top_k=3, seed=1),
        GenerationOptions(),
        GenerationOptions(logprobs=5),
    ]
    told = choose_tokens(
        scores, options=options, generators=[Generator().manual_seed(1) for _ in range(3)]
    )
    truth = scores.log_softmax(-1)
    assert told[0].logprob == pytest.approx(truth[0, told[0].token_id].item())
    best = truth[0].topk(2)
    assert told[0].top == tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    assert (told[1].logprob, told[1].top) == (None, ())
    assert len(told[2].top) == 2  # what could not be chosen is not told


def test_probabilities_without_any_others():
    [told] = choose_tokens(
        SCORES[None], options=[GenerationOptions(logprobs=0)], generators=[Generator()]
    )
    assert (told.token_id, told.top) == (0, ())
    assert told.logprob == pytest.approx(math.log(0.5))
