import pytest

from mllm_npu.evaluate.digits_suite import GUIDANCES, TARGETS, DigitsSuite
from mllm_npu.evaluate.runner import Meter
from mllm_npu.inference.options import GenerationOptions

WORLD_FIGURES = {
    "comprehension_accuracy",
    "reconstruction_judged",
    "reconstruction_mse",
    "draw_judged",
    "judge_accuracy",
    "draw_diversity",
    "ocr_exact_match",
    "sum_accuracy",
}


def measure(engine, world, *, limit=None, meter=None):
    suite = DigitsSuite(
        engine=engine,
        world=world,
        options=GenerationOptions(guidance=9.0),
        limit=limit,
        meter=meter or Meter(),
    )
    return suite.measure()


@pytest.fixture(scope="module")
def perfect(all_right, digits_world):
    engine = all_right("digits")
    return engine, measure(engine, digits_world)


def values_of(result):
    return {figure.name: figure.value for figure in result.figures}


def test_a_model_that_knows_everything_has_full_marks(perfect):
    _, result = perfect
    values = values_of(result)
    assert set(values) == WORLD_FIGURES
    for name in ("comprehension_accuracy", "ocr_exact_match", "sum_accuracy"):
        assert values[name] == 1.0
    # Redrawing gives the scans themselves, so the judge's own mistakes are all that is left.
    assert values["reconstruction_judged"] == values["judge_accuracy"] >= 0.9
    assert values["reconstruction_mse"] == 0.0
    # "Drawn" are real held-out scans.
    assert values["draw_judged"] >= 0.9
    assert 0.5 < values["draw_diversity"] < 1.2


def test_targets_stand_at_their_figures(perfect):
    _, result = perfect
    targets = {figure.name: figure.target for figure in result.figures if figure.target}
    assert targets == {name: TARGETS[name] for name in WORLD_FIGURES - {"judge_accuracy"}}


def test_guidance_is_chosen_on_validation_questions_only(perfect):
    engine, result = perfect
    drawing, redrawing = result.choices
    assert [trial.guidance for trial in drawing.trials] == list(GUIDANCES)
    tried = [talk.key for talk, options in engine.asked if options.seed >= 1_000_000]
    assert tried
    assert all("-valid-" in key for key in tried)
    num_valid = redrawing.trials[0].num
    assert [num for num, _ in engine.redraws[:-1]] == [num_valid] * len(GUIDANCES)


def test_the_chosen_guidance_is_used_on_the_held_out_split(perfect):
    engine, result = perfect
    drawing, redrawing = result.choices
    held_out = {
        options.guidance
        for talk, options in engine.asked
        if "unseen-test" in talk.key and options.guidance != 9.0
    }
    assert held_out == {drawing.chosen.guidance}
    assert engine.redraws[-1][1] == redrawing.chosen.guidance


def test_no_question_of_training_is_asked(perfect):
    engine, _ = perfect
    assert not [talk.key for talk, _ in engine.asked if "-train-" in talk.key]


def test_mistakes_lower_their_figure_only(all_right, digits_world, perfect):
    strips = [key for key in keys_of(all_right) if key.startswith("ocr-test")]
    result = measure(all_right("digits", mistakes=strips[: len(strips) // 2]), digits_world)
    values, before = values_of(result), values_of(perfect[1])
    assert values.pop("ocr_exact_match") == pytest.approx(0.5, abs=0.05)
    before.pop("ocr_exact_match")
    assert values == before


def keys_of(all_right):
    return sorted(all_right("digits").answer.right)


def test_a_model_that_draws_nothing_has_no_diversity(all_right, digits_world):
    drawings = [
        key for key in keys_of(all_right) if key.startswith(("unseen", "instruction-valid"))
    ]
    result = measure(all_right("digits", mistakes=drawings), digits_world)
    values = values_of(result)
    assert values["draw_judged"] == 0.0
    assert "draw_diversity" not in values


def test_a_quick_look_takes_few_examples(all_right, digits_world):
    seen = []
    meter = Meter(lambda done, total: seen.append((done, total)))
    result = measure(all_right("digits"), digits_world, limit=4, meter=meter)
    assert {len(task_result.records) for task_result in result.results} == {4}
    assert seen[-1][0] == seen[-1][1] == 4 * (len(GUIDANCES) * 2 + 4 + 1)


def test_the_page_has_pictures_and_confusions(perfect):
    _, result = perfect
    assert [len(gallery.rows) for gallery in result.galleries] == [10, 3]
    reading, drawing = result.confusions
    assert sum(map(sum, reading.counts)) == len(result.results[0].records)
    assert sum(map(sum, drawing.counts)) == len(result.results[1].records)
