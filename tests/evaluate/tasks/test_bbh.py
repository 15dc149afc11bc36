"""Invented questions in the layout of BIG-Bench Hard, and the published files where they are."""

import json
import zipfile

import pytest

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.tasks.bbh import BBH, SETS, TASKS
from mllm_npu.inference.options import GenerationOptions

ALL_SETS = [part for tasks in TASKS.values() for task in tasks for part in SETS.get(task, (task,))]
HEAD = "TEST DATA, do not train on it. canary\n-----\n"
PROMPT = (
    "Say what is told of snarks.\n\nThere are many.\n\n"
    "Q: Is a snark red?\nOptions:\n(A) yes\n(B) no\nA: Let's think step by step.\n"
    "It is red. So the answer is (A).\n\n"
    "Q: Is a snark blue?\nA: Let's think step by step.\nIt is not. So the answer is (B)."
)
GOLDEN = f"{PROMPT}\n\nQ: Question 1 of snarks\nA: Let's think step by step."
CODEX = {
    "boolean_expressions": 92.8,
    "dyck_languages": 56.8,
    "geometric_shapes": 54.4,
    "logical_deduction_three_objects": 87.6,
    "logical_deduction_five_objects": 54.8,
    "logical_deduction_seven_objects": 38.8,
    "multistep_arithmetic_two": 47.6,
    "navigate": 96.4,
    "object_counting": 93.2,
    "temporal_sequences": 96.8,
    "tracking_shuffled_objects_three_objects": 78.4,
    "tracking_shuffled_objects_five_objects": 89.6,
    "tracking_shuffled_objects_seven_objects": 85.6,
    "web_of_lies": 95.2,
    "word_sorting": 40.4,
}
"""Published accuracies of a model, of 250 questions each; their published average is 74.4."""


def write_bbh(folder, *, head=HEAD, data="bbh", prompts="cot-prompts", number=2):
    for part in (data, prompts):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in ALL_SETS:
        rows = [{"input": f"Question {n} of {name}", "target": f"({n})"} for n in range(number)]
        (folder / data / f"{name}.json").write_text(json.dumps({"examples": rows}))
        prompt = PROMPT.replace("snarks", name)
        (folder / prompts / f"{name}.txt").write_text(head + prompt)
    return folder


def make_task(data, **changes):
    return BBH(**{"data": data, "shots": 2, "options": GenerationOptions(), **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_bbh(tmp_path_factory.mktemp("bbh"))


@pytest.fixture
def read(fakes, data):
    task = make_task(data)
    example = task.examples()[0]
    return lambda text: task.explain(example, fakes.make_reply(text))


def test_there_are_27_sets_in_23_tasks_of_two_kinds():
    assert len(ALL_SETS) == len(set(ALL_SETS)) == 27
    assert {kind: len(tasks) for kind, tasks in TASKS.items()} == {"NLP": 12, "algorithmic": 11}


def test_the_prompt_is_the_published_one_and_each_example_is_a_part(data):
    found = {example.name: example for example in make_task(data).examples()}
    example = found["snarks/1"]
    parts = [part.text for part in example.conversation.turns[0].parts]
    assert "".join(parts) == GOLDEN
    assert parts[0] == "Say what is told of snarks.\n\nThere are many.\n\n"
    assert (example.first_shot, example.num_shots, len(parts)) == (1, 2, 4)
    assert (example.answer, example.choices) == ("(1)", ())
    assert example.groups == ("NLP", "snarks")


@pytest.mark.parametrize("shots", [0, 1])
def test_fewer_shots_are_the_first_ones(data, shots):
    example = make_task(data, shots=shots).examples()[0]
    text = "".join(part.text for part in example.conversation.turns[0].parts)
    assert (text.count("Is a snark red?"), text.count("Is a snark blue?")) == (shots, 0)


@pytest.mark.parametrize(
    ("frame", "role", "stop"), [("plain", "document", "\n\n"), ("chat", "user", "\n\nQ:")]
)
def test_thoughts_are_long_and_end_before_the_next_question(data, frame, role, stop):
    example = make_task(data, frame=frame, max_new_tokens=700).examples()[0]
    assert example.conversation.turns[0].role == role
    assert example.options == GenerationOptions(max_new_tokens=700, stop=(stop,), images="forbid")


def test_other_copies_name_their_folders_otherwise(tmp_path, data):
    copy = write_bbh(tmp_path / "copy", head="", data="data", prompts="lib_prompt")
    with zipfile.ZipFile(tmp_path / "bbh.zip", "w") as archive:
        for path in copy.rglob("*.*"):
            archive.write(path, f"BBH/{path.relative_to(copy)}")
    assert make_task(tmp_path / "bbh").examples() == make_task(data).examples()


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("It is red. So the answer is (A).", "(A)"),
        ("So the answer is } ] >.\n\nQ: next", "} ] >"),
        ("So the answer is -219", "-219"),
        ("the answer is 1. No: So The Answer Is: 2.", "2"),
        ("So the answer is (A) or (B).", "(A) or (B)"),
        ("So it is (A).", None),
        ("So the answer is", None),
        ("", None),
    ],
)
def test_what_follows_the_cue_is_the_answer(read, said, understood):
    assert read(said) == understood


def test_only_the_target_itself_is_right(data, fakes):
    task = make_task(data)
    example = task.examples()[0]
    said = {"So the answer is (0).": 1, "the answer is 0.": 0, "(0)": 0, "the answer is (0) x": 0}
    assert {text: task.score(example, fakes.make_reply(text)) for text in said} == said


def test_averages_are_over_tasks(data, write_replies):
    task, right = make_task(data), {"snarks/0", "logical_deduction_five_objects/1"}

    def say(example):
        return f"the answer is {example.answer}." if example.name in right else "I give up"

    figures = task.figures(write_replies(task, say))
    found = {figure.name: figure for figure in figures}
    assert found["bbh"].value == pytest.approx((1 / 2 + 1 / 6) / 23, abs=1e-5)
    assert found["bbh/NLP"].value == pytest.approx((1 / 2) / 12, abs=1e-5)
    assert found["bbh/algorithmic"].value == pytest.approx((1 / 6) / 11, abs=1e-5)
    assert found["bbh/logical_deduction"].value == pytest.approx(1 / 6, abs=1e-5)
    assert found["bbh/logical_deduction_five_objects"].value == 1 / 2
    assert found["bbh"].num_unread == 52
    assert len(figures) == len(found) == 1 + 2 + 23 + 6
    names = [figure.name for figure in figures]
    start = names.index("bbh/logical_deduction")
    assert [figure.level for figure in figures[start : start + 5]] == [2, 3, 3, 3, 2]


def test_published_accuracies_have_the_published_average(tmp_path, write_replies):
    task = make_task(write_bbh(tmp_path, number=250), shots=0)
    wanted = {name: round(2.5 * share) for name, share in CODEX.items()}

    def say(example):
        name, number = example.name.split("/")
        return f"the answer is {example.answer if int(number) < wanted[name] else 'no'}"

    asked = [example for example in task.examples() if example.groups[0] == "algorithmic"]
    figures = task.figures(write_replies(task, say, asked))
    assert next(f for f in figures if f.name == "bbh/algorithmic").value == pytest.approx(
        0.744, abs=5e-4
    )


def test_a_missing_folder_is_told_with_its_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\n(?s:.*)cot-prompts/boolean"):
        make_task(tmp_path / "nowhere").examples()


@pytest.mark.parametrize("part", ["bbh/word_sorting.json", "cot-prompts/word_sorting.txt"])
def test_a_missing_file_is_not_left_out(tmp_path, part):
    folder = write_bbh(tmp_path)
    (folder / part).unlink()
    with pytest.raises(DataError, match=r"there is no \S+/word_sorting"):
        make_task(folder).examples()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], 'has no "examples"'),
        ({"examples": []}, 'has no "examples"'),
        ({"examples": ["q"]}, "example 0 has no input or no target"),
        ({"examples": [{"input": "q", "target": "a"}, {"input": "q"}]}, "example 1 has no input"),
        ({"examples": [{"input": "q", "target": 3}]}, "example 0 has no input or no target"),
    ],
)
def test_a_bad_file_of_questions_is_named(tmp_path, content, message):
    folder = write_bbh(tmp_path)
    (folder / "bbh" / "snarks.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"bbh/snarks.json in .*{message}"):
        make_task(folder).examples()


@pytest.mark.parametrize("prompt", ["", "Only told what to do.\n\nQ: What?\nA: That."])
def test_a_bad_prompt_is_named(tmp_path, prompt):
    folder = write_bbh(tmp_path)
    (folder / "cot-prompts" / "snarks.txt").write_text(prompt)
    with pytest.raises(DataError, match=r"cot-prompts/snarks.txt in .* is no task description"):
        make_task(folder).examples()


@pytest.mark.parametrize("shots", [-1, 3])
def test_more_shots_than_there_are_are_refused(data, shots):
    with pytest.raises(ConfigError, match=rf"shots={shots} was asked for, .* from 0 to 2"):
        make_task(data, shots=shots).examples()


def test_the_published_files_are_read_whole(shared, fakes):
    data = shared / "data" / "benchmarks" / "bbh"
    if not data.with_suffix(".zip").exists():
        pytest.skip("the published files of BIG-Bench Hard are not here")
    task = make_task(data, shots=3)
    examples = task.examples()
    assert len(examples) == 6511
    assert {example.facts["set"] for example in examples} == set(ALL_SETS)
    assert all(example.num_shots == 3 for example in examples)
    right = [
        task.score(example, fakes.make_reply(f"Well. So the answer is {example.answer}."))
        for example in examples
    ]
    assert sum(right) == 6511
