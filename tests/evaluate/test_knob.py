from mllm_npu.evaluate.knob import RULE, Trial, choose_trial


def trial(guidance, judged, tie_break, num=200):
    return Trial(guidance=guidance, image_steps=10, judged=judged, num=num, tie_break=tie_break)


def test_of_those_that_are_good_enough_the_tie_break_decides():
    trials = [trial(1, 0.93, 1.05), trial(1.5, 0.99, 0.85), trial(2, 0.997, 0.71), trial(3, 1, 0.6)]
    assert choose_trial(trials) is trials[1]


def test_where_none_is_good_enough_the_highest_share_wins():
    trials = [trial(1, 0.90, 0.93), trial(2, 0.97, 0.6), trial(3, 0.92, 0.5)]
    assert choose_trial(trials) is trials[1]


def test_equals_within_noise_are_decided_by_the_tie_break():
    trials = [trial(1, 0.90, 0.93), trial(2, 0.975, 0.64), trial(3, 0.98, 0.53)]
    assert choose_trial(trials) is trials[1]


def test_with_many_pictures_the_same_difference_is_no_tie():
    trials = [trial(2, 0.97, 0.64, num=100_000), trial(3, 0.98, 0.53, num=100_000)]
    assert choose_trial(trials) is trials[1]


def test_few_pictures_have_noise_of_at_least_one():
    one_wrong = [
        trial(1, 0.90, 0.9, num=10),
        trial(2, 0.80, 0.95, num=10),
        trial(3, 0.5, 1, num=10),
    ]
    assert choose_trial(one_wrong) is one_wrong[1]


def test_the_rule_says_what_is_not_looked_at():
    assert "validation" in RULE
    assert "held-out split is not looked at" in RULE
