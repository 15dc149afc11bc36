import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.seed_bench_2 import SeedBench2
from mllm_npu.inference.events import Likelihood
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.raster import to_pillow

OPTIONS = GenerationOptions(seed=100)
COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
NAMES = {value: name for name, value in COLOURS.items()}
PICTURES = [f"{colour}.png" for colour in COLOURS]


class MeanColours:
    """Stands for features of a vision encoder."""

    def pool(self, pictures):
        pixels = [np.asarray(to_pillow(picture).convert("RGB")) for picture in pictures]
        return np.stack([one.reshape(-1, 3).mean(0) for one in pixels]).astype(np.float32)


def row(dimension, question, choices, answer, pictures, subpart, number=0):
    return {
        "answer": answer,
        **dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), choices, strict=True)),
        "data_id": pictures,
        "data_source": "SEED-Bench v2",
        "level": "L1" if dimension <= 22 else "L2" if dimension <= 24 else "L3",
        "question": question,
        "question_id": f"{dimension}_{number}",
        "question_type_id": dimension,
        "subpart": subpart,
    }


FOUR = ("one", "two", "three", "four")
SINGLE, VIDEO = "Single-Image & Text Comprehension", "Video & Text Comprehension"
MIXED, DRAW, BOTH = (
    "Interleaved Image & Text Comprehension",
    "Image Generation",
    "Image & Text Generation",
)
ROWS = [
    row(5, "How many?", FOUR, "A", "red.png", SINGLE),
    row(5, "How many more?", FOUR, "B", "blue.png", SINGLE, number=1),
    row(19, "What happens?", FOUR, "C", ["red.png", "lime.png", "blue.png"], VIDEO),
    row(23, "<img>: it is red. <img>:", FOUR, "D", ["red.png", "blue.png"], MIXED),
    row(25, "Which picture fits the description: A red sky.", PICTURES, "A", PICTURES, DRAW),
    row(26, "What is next?", PICTURES, "C", ["lime.png", *PICTURES], DRAW),
    row(27, "How does it look?", FOUR, "B", PICTURES, BOTH),
]


def write(root, rows):
    (root / "SEED-Bench_v2_level1_2_3.json").write_text(json.dumps({"questions": rows}))
    (root / "SEED-Bench-2-image").mkdir(exist_ok=True)
    for name, colour in COLOURS.items():
        buffer = io.BytesIO()
        Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
        (root / "SEED-Bench-2-image" / f"{name}.png").write_bytes(buffer.getvalue())
    return root


@pytest.fixture
def quiz(tmp_path):
    return write(tmp_path, ROWS)


def spoken(turn):
    return [
        part.text if isinstance(part, Text) else NAMES[to_pillow(part.picture).getpixel((0, 0))]
        for part in turn.parts
    ]


@pytest.fixture
def answer(fakes):
    """Records of a task: a likeliest choice or a drawn colour for each example by name."""

    def give(task, said):
        records = []
        for example in task.examples():
            wish = said[example.name]
            if example.choices:
                weighed = tuple(
                    Likelihood(
                        text=text, logprob=-1.0 - (text != wish), num_tokens=1, is_greedy=False
                    )
                    for text in example.choices
                )
                reply = replace(fakes.make_reply(wish), choices=weighed)
            elif example.options.images == "force":
                reply = fakes.make_reply("", [Image.new("RGB", (8, 8), wish)] if wish else [])
            else:
                reply = fakes.make_reply(wish)
            records.append(
                Record(
                    example=example,
                    reply=reply,
                    understood=task.explain(example, reply),
                    score=task.score(example, reply),
                )
            )
        return records

    return give


def test_pictures_frames_and_interleaved_texts(quiz):
    examples = SeedBench2(data=quiz, options=OPTIONS).examples()
    assert [example.name for example in examples] == ["5_0", "5_1", "19_0", "23_0"]
    assert [spoken(example.conversation.turns[0]) for example in examples] == [
        ["red", "How many?"],
        ["blue", "How many more?"],
        ["red", "lime", "blue", "What happens?"],
        ["red", ": it is red. ", "blue", ":"],
    ]
    assert all(example.choices == FOUR for example in examples)
    assert examples[3].groups == ("Part-2", MIXED, "In-Context Captioning")


def test_letters_are_asked_for_where_a_reply_is_generated(quiz):
    examples = SeedBench2(data=quiz, options=OPTIONS, by="generation", frame="plain").examples()
    ending = (
        "\nA. one\nB. two\nC. three\nD. four\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert spoken(examples[0].conversation.turns[0]) == ["red", f"How many?{ending}"]
    assert spoken(examples[3].conversation.turns[0])[2:] == ["blue", f":{ending}"]
    assert examples[0].choices == ()
    assert examples[0].conversation.turns[0].role == "document"


def test_the_first_level_alone(quiz):
    examples = SeedBench2(data=quiz, options=OPTIONS, level="L1").examples()
    assert [example.name for example in examples] == ["5_0", "5_1", "19_0"]


def test_levels_are_means_over_dimensions(quiz, answer):
    task = SeedBench2(data=quiz, options=OPTIONS)
    records = answer(task, {"5_0": "one", "5_1": "four", "19_0": "three", "23_0": "one"})
    figures = task.figures(records)
    assert {figure.name: figure.value for figure in figures} == {
        "seed_bench_2": 0.5,
        "seed_bench_2/L1": 0.75,
        f"seed_bench_2/{SINGLE}": 0.5,
        "seed_bench_2/Instances Counting": 0.5,
        f"seed_bench_2/{VIDEO}": 1.0,
        "seed_bench_2/Global Video Understanding": 1.0,
        "seed_bench_2/Part-2": 0.0,
        f"seed_bench_2/{MIXED}": 0.0,
        "seed_bench_2/In-Context Captioning": 0.0,
    }
    assert figures[0].title == "SEED-Bench-2, L2"
    assert figures[0].num == 4


def test_the_likelihood_of_a_choice_is_that_of_its_tokens_on_average(quiz, fakes):
    task = SeedBench2(data=quiz, options=OPTIONS)
    example = task.examples()[0]
    weighed = tuple(
        Likelihood(text=text, logprob=logprob, num_tokens=number, is_greedy=False)
        for text, logprob, number in zip(FOUR, (-3, -2, -4, -9), (3, 1, 2, 4), strict=True)
    )
    reply = replace(fakes.make_reply(), choices=weighed)
    assert task.explain(example, reply) == "A"
    by_sum = SeedBench2(data=quiz, options=OPTIONS, norm="none")
    assert by_sum.explain(example, reply) == "B"


def test_drawing_needs_something_that_compares_pictures(quiz):
    with pytest.raises(ConfigError, match="level=L3, whose drawn pictures are compared"):
        SeedBench2(data=quiz, options=OPTIONS, level="L3")


def test_what_is_to_be_drawn(quiz):
    task = SeedBench2(data=quiz, options=OPTIONS, level="L3", features=MeanColours())
    assert task.needs_drawing
    examples = {example.name: example for example in task.examples()}
    drawn = [examples[name] for name in ("25_0", "26_0", "27_0-picture")]
    assert [[spoken(turn) for turn in one.conversation.turns] for one in drawn] == [
        [["Generate an image: A red sky."]],
        [["lime", "What is next?"]],
        [["How does it look?"], ["two"]],
    ]
    assert [turn.role for turn in drawn[2].conversation.turns] == ["user", "assistant"]
    assert [one.options.images for one in drawn] == ["force"] * 3
    assert [one.options.seed for one in drawn] == [101, 102, 103]
    assert spoken(examples["27_0"].conversation.turns[0]) == ["How does it look?"]
    again = {example.name: example.options.seed for example in task.examples()}
    assert again == {name: example.options.seed for name, example in examples.items()}


SAID = {
    "5_0": "one",
    "5_1": "four",
    "19_0": "three",
    "23_0": "one",
    "25_0": (200, 10, 0),
    "26_0": (0, 90, 90),
    "27_0": "two",
    "27_0-picture": (10, 220, 0),
}


def test_a_drawn_picture_is_the_choice_it_is_most_like(quiz, answer):
    task = SeedBench2(data=quiz, options=OPTIONS, level="L3", features=MeanColours())
    records = answer(task, SAID)
    understood = {record.example.name: record.understood for record in records}
    assert understood["25_0"] == "A"
    assert understood["26_0"] == "D"
    assert understood["27_0-picture"] == "B"
    figures = {figure.name: figure for figure in task.figures(records)}
    values = {name: figure.value for name, figure in figures.items()}
    assert values["seed_bench_2"] == pytest.approx((0.5 + 1 + 0 + 1 + 0 + 1) / 6, abs=1e-5)
    assert values["seed_bench_2/L2"] == pytest.approx((0.5 + 1 + 0) / 3, abs=1e-5)
    assert values["seed_bench_2/L1"] == 0.75
    assert values["seed_bench_2/Part-3"] == pytest.approx(2 / 3, abs=1e-5)
    assert values[f"seed_bench_2/{DRAW}"] == 0.5
    assert values["seed_bench_2/Text-Image Creation"] == 1.0
    assert figures["seed_bench_2"].num == 7, "a question of text and picture counts once"
    assert figures["seed_bench_2/L2"].level == 1


@pytest.mark.parametrize(
    ("text", "picture", "prediction"),
    [("two", "lime", "B"), ("two", "red", "A"), ("one", "lime", "A"), ("two", None, "")],
)
def test_text_and_picture_must_both_be_right(text, picture, prediction, quiz, answer):
    task = SeedBench2(data=quiz, options=OPTIONS, level="L3", features=MeanColours())
    records = answer(task, {**SAID, "27_0": text, "27_0-picture": picture})
    figures = {figure.name: figure for figure in task.figures(records)}
    figure = figures["seed_bench_2/Text-Image Creation"]
    assert figure.value == float(prediction == "B")
    assert figure.num_unread == (prediction == "")
    lines = task.submissions(records)["seed_bench_2_results.json"].splitlines()
    assert json.loads(lines[-1]) == {"question_id": "27_0", "prediction": prediction}
    assert len(lines) == 7


def test_a_reply_without_a_letter_is_counted(quiz, answer):
    task = SeedBench2(data=quiz, options=OPTIONS, by="generation")
    records = answer(task, {"5_0": "A", "5_1": "hm", "19_0": "(C)", "23_0": "The answer is D."})
    figures = task.figures(records)
    assert (figures[0].num_unread, figures[0].value) == (1, pytest.approx(2.5 / 3, abs=1e-5))


def test_pictures_without_a_mark_come_first_and_a_mark_needs_a_picture(quiz):
    rows = [row(24, "[img] and?", FOUR, "A", ["red.png", "blue.png"], MIXED)]
    write(quiz, rows)
    [example] = SeedBench2(data=quiz, options=OPTIONS).examples()
    assert spoken(example.conversation.turns[0]) == ["blue", "red", " and?"]
    write(quiz, [{**rows[0], "question": "<img><img><img>"}])
    with pytest.raises(DataError, match="more <img> are in the question than pictures, 2"):
        SeedBench2(data=quiz, options=OPTIONS).examples()


def test_two_questions_of_one_name_are_refused(quiz):
    write(quiz, ROWS[:1] * 2)
    with pytest.raises(DataError, match="the example '5_0' is there twice"):
        SeedBench2(data=quiz, options=OPTIONS).examples()


def test_guesses_are_right_as_often_as_chance(tmp_path, guess_letters, is_chance):
    rows = [
        row(number % 22 + 1, "Where?", FOUR, "ABCD"[number % 4], "red.png", SINGLE, number)
        for number in range(400)
    ]
    task = SeedBench2(data=write(tmp_path, rows), options=OPTIONS)
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=3), len(examples))
