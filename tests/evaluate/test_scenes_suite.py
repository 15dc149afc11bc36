import pytest

from mllm_npu.evaluate.runner import Meter
from mllm_npu.evaluate.scenes_suite import GUIDANCES, TARGETS, ScenesSuite
from mllm_npu.inference.options import GenerationOptions


def measure(engine, world, limit=None):
    suite = ScenesSuite(
        engine=engine, world=world, options=GenerationOptions(), limit=limit, meter=Meter()
    )
    return suite.measure()


def values_of(result):
    return {figure.name: figure.value for figure in result.figures}


@pytest.fixture(scope="module")
def perfect(all_right, scenes_world):
    engine = all_right("scenes")
    return engine, measure(engine, scenes_world)


def test_a_model_that_knows_everything_has_full_marks(perfect):
    assert values_of(perfect[1]) == {
        "scenes_qa": 1.0,
        "scenes_caption_exact": 1.0,
        "scenes_draw_strict": 1.0,
        "scenes_edit_strict": 1.0,
        "scenes_judge_accuracy": 1.0,
    }


def test_targets_stand_at_their_figures(perfect):
    targets = {figure.name: figure.target for figure in perfect[1].figures if figure.target}
    assert targets == {name: TARGETS[name] for name in TARGETS if name.startswith("scenes")}


def test_guidance_is_chosen_on_validation_questions_only(perfect):
    engine, result = perfect
    [drawing] = result.choices
    assert [trial.guidance for trial in drawing.trials] == list(GUIDANCES)
    assert {trial.tie_break for trial in drawing.trials} == {1.0}
    tried = [talk.key for talk, options in engine.asked if options.seed >= 1_000_000]
    assert tried
    assert all(key.startswith("draw-valid") for key in tried)
    assert not [talk.key for talk, _ in engine.asked if "-train-" in talk.key]


def test_mistakes_lower_their_figures(all_right, scenes_world):
    keys = all_right("scenes").answer.right
    wrong = [key for key in keys if key.startswith(("draw-test", "edit-test"))]
    values = values_of(measure(all_right("scenes", mistakes=wrong), scenes_world))
    assert (values["scenes_draw_strict"], values["scenes_edit_strict"]) == (0.0, 0.0)
    assert values["scenes_qa"] == 1.0


def test_drawn_scenes_stand_beside_rendered_ones(perfect):
    [gallery] = perfect[1].galleries
    assert sum(len(row.real) for row in gallery.rows) == len(perfect[1].results[2].records)
    assert not any(tile.is_wrong for row in gallery.rows for tile in row.drawn)


def test_a_quick_look_takes_few_examples(all_right, scenes_world):
    result = measure(all_right("scenes"), scenes_world, limit=3)
    assert {len(task_result.records) for task_result in result.results} == {3}
