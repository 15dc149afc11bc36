from mllm_npu.evaluate.knob import RULE, Trial, choose_trial


def trial(guidance, judged, tie_break, num=200):
    return Trial(guidance=guidance, image_steps=10, judged=judged, num=num, tie_break=tie_break)


def test_the_highest_share_wins():
    trials = [trial(1, 0.90, 0.93), trial(2, 0.97, 0.6), trial(3, 0.92, 0.5)]
    assert choose_trial(trials) is trials[1]


def test_equals_within_noise_are_decided_by_the_tie_break():
    trials = [trial(1, 0.90, 0.93), trial(2, 0.996, 0.64), trial(3, 1.0, 0.53)]
    assert choose_trial(trials) is trials[1]


def test_with_many_pictures_the_same_difference_is_no_tie():
    trials = [trial(2, 0.996, 0.64, num=100_000), trial(3, 1.0, 0.53, num=100_000)]
    assert choose_trial(trials) is trials[1]


def test_a_perfect_share_still_has_noise():
    one_wrong = [trial(1, 0.98, 0.9, num=50), trial(2, 1.0, 0.5, num=50)]
    assert choose_trial(one_wrong) is one_wrong[0]
    two_wrong = [trial(1, 0.96, 0.9, num=50), trial(2, 1.0, 0.5, num=50)]
    assert choose_trial(two_wrong) is two_wrong[1]


def test_the_rule_says_what_is_not_looked_at():
    assert "validation" in RULE
    assert "held-out split is not looked at" in RULE
