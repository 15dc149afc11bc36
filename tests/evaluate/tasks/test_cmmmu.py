import io
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.tasks.cmmmu import CMMMU
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.raster import to_pillow

OPTIONS = GenerationOptions()
NAMES = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 255, 0): "lime"}
CHOOSE = (
    "请回答以下多项选择题，并选出正确选项。这些题目可能包括单选和多选题型。如果所提供的信息不足以"
    "确定一个明确的答案，那么请根据可用的数据和你的判断来选择最可能正确的选项。\n\n问题："
)
JUDGE = (
    "请回答以下判断题，并根据题目描述和所给的信息来判断问题中陈述的对错。如果信息不完整或不足以"
    "作出绝对判断，请运用你的逻辑推理和现有信息来做出最可能的判断。\n\n问题："
)
FILL_IN = (
    "请回答以下填空题，并根据题目的要求和所提供的信息来给出最恰当的答案。如果信息不足以确切回答，"
    "那么请依据现有的数据和你的推理能力来填写最合理的答案。\n\n问题："
)


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def question(number, kind, text, answer, *, options=(), subject=("商业", "经济")):
    return {
        "id": number,
        "type": kind,
        "question": text,
        **{f"option{place}": option for place, option in enumerate(options, 1)},
        "answer": answer,
        "category": subject[0],
        "subcategory": subject[1],
        "img_list": ["q_1.png"],
    }


BUSINESS = [
    question(
        *(11, "选择", '看<img="q_1.png">，它是_', "AC"),
        options=('<img="a_1.png">', '<img="a_2.png">', "红", "绿"),
    ),
    question(12, "判断", '<img="q_1.png">是红的。', "对"),
]
SCIENCE = [
    question(21, "填空", '<img="q_1.png">有_米', "3.5", subject=("科学", "物理")),
    question(
        *(22, "选择", '<img="q_1.png">', "B"),
        options=("东", "南", "西", "北"),
        subject=("科学", "数学"),
    ),
]


def write(root, folders, split="val"):
    for folder, questions in folders.items():
        path = root / f"cmmmu-data-{split}" / folder
        path.mkdir(parents=True)
        lines = [json.dumps(one, ensure_ascii=False) for one in questions]
        (path / f"{folder}.jsonl").write_text("\n".join(lines) + "\n")
        for name, colour in {"q_1": "red", "a_1": "blue", "a_2": "lime"}.items():
            (path / f"{name}.png").write_bytes(encoded(colour))
    return root


@pytest.fixture
def quiz(tmp_path):
    return write(tmp_path / "cmmmu", {"business": BUSINESS, "science": SCIENCE})


def spoken(example):
    return [
        part.text if isinstance(part, Text) else NAMES[to_pillow(part.picture).getpixel((0, 0))]
        for part in example.conversation.turns[-1].parts
    ]


def test_prompts(quiz):
    examples = CMMMU(data=quiz, options=OPTIONS).examples()
    assert [spoken(example) for example in examples] == [
        [
            f"{CHOOSE}看",
            "red",
            "，它是_\n选项：\n(A) ",
            "blue",
            "\n(B) ",
            "lime",
            "\n(C) 红\n(D) 绿\n\n正确答案：\n",
        ],
        [JUDGE, "red", "是红的。\n正确答案：\n"],
        [FILL_IN, "red", "有_米\n正确答案：\n"],
        [CHOOSE, "red", "\n选项：\n(A) 东\n(B) 南\n(C) 西\n(D) 北\n\n正确答案：\n"],
    ]
    assert [example.answer for example in examples] == ["AC", "对", "3.5", "B"]


def test_scores_and_averages(quiz, write_replies):
    task = CMMMU(data=quiz, options=OPTIONS)
    said = {"11": "(A)(C)", "12": "这个说法是错误的。", "21": "答案是3.50米", "22": "南"}
    records = write_replies(task, lambda example: said[example.name])
    assert [record.understood for record in records] == ["AC", "错", "3.50米 | 3.5", "B"]
    assert {figure.name: figure.value for figure in task.figures(records)} == {
        "cmmmu": 0.75,
        "cmmmu/商业": 0.5,
        "cmmmu/经济": 0.5,
        "cmmmu/科学": 1.0,
        "cmmmu/物理": 1.0,
        "cmmmu/数学": 1.0,
    }


def test_one_of_two_right_letters_is_wrong(quiz, fakes):
    task = CMMMU(data=quiz, options=OPTIONS)
    assert task.score(task.examples()[0], fakes.make_reply("A")) == 0.0


def test_likelihood_weighs_all_combinations_and_both_judgements(quiz):
    examples = CMMMU(data=quiz, options=OPTIONS, by="likelihood").examples()
    assert len(examples[0].choices) == 15
    assert examples[0].choices[:6] == ("A", "B", "C", "D", "AB", "AC")
    assert [example.choices for example in examples[1:3]] == [("对", "错"), ()]


def test_replies_that_say_nothing_are_counted_and_guessed_alike(quiz, write_replies):
    task = CMMMU(data=quiz, options=OPTIONS)
    records = write_replies(task, lambda example: "")
    assert [record.understood for record in records] == [None] * 4
    assert task.figures(records)[0].num_unread == 4
    assert records[2].score == 0.0, "what is to be filled in is not guessed"
    again = write_replies(CMMMU(data=quiz, options=OPTIONS), lambda example: "")
    assert [record.score for record in again] == [record.score for record in records]


def test_guesses_are_right_as_often_as_chance(tmp_path, write_replies, is_chance):
    options = ("东", "南", "西", "北")
    choosing = [
        question(number, "选择", "哪里？", "ABCD"[number % 4], options=options)
        for number in range(400)
    ]
    judging = [question(number, "判断", "在？", "对错"[number % 2]) for number in range(400, 800)]
    write(tmp_path, {"business": choosing, "science": judging})
    task = CMMMU(data=tmp_path, options=OPTIONS)
    scores = [record.score for record in write_replies(task, lambda example: "嗯")]
    assert is_chance(sum(scores[:400]) / 400, 400)
    assert abs(sum(scores[400:]) / 400 - 0.5) < 3 * (0.25 / 400) ** 0.5


def test_hidden_answers_make_a_submission_and_no_score(tmp_path, write_replies):
    hidden = [{key: one[key] for key in one if key != "answer"} for one in (*BUSINESS, *SCIENCE)]
    write(tmp_path, {"all": hidden}, split="test")
    task = CMMMU(data=tmp_path, options=OPTIONS, split="test")
    said = {"11": "选A", "12": "嗯", "21": "a very long reply in many words", "22": "B"}
    records = write_replies(task, lambda example: said[example.name])
    [figure] = task.figures(records)
    assert (figure.name, figure.value) == ("cmmmu/answered", 0.75)
    [(name, text)] = task.submissions(records).items()
    assert name == "cmmmu_test.jsonl"
    assert [json.loads(line) for line in text.splitlines()][:2] == [
        {"id": 11, "type": "选择", "response": "选A"},
        {"id": 12, "type": "判断", "response": "嗯"},
    ]


def test_a_saved_data_set_says_the_same(quiz, tmp_path):
    colours = {"q_1.png": "red", "a_1.png": "blue", "a_2.png": "lime"}
    rows = []
    for one in (*BUSINESS, *SCIENCE):
        row = {**one, "id": str(one["id"]), "img_list": None}
        row |= {f"option{place}": one.get(f"option{place}") for place in range(1, 5)}
        for place, (name, colour) in enumerate(colours.items(), 1):
            row[f"image_{place}"] = {"bytes": encoded(colour), "path": None}
            row[f"image_{place}_filename"] = name
        rows.append(row)
    (tmp_path / "saved" / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "saved" / "data" / "val-00000-of-00001.parquet")
    saved = CMMMU(data=tmp_path / "saved", options=OPTIONS).examples()
    published = CMMMU(data=quiz, options=OPTIONS).examples()
    assert [(one.name, spoken(one), one.answer) for one in saved] == [
        (one.name, spoken(one), one.answer) for one in published
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "简答"}, r"business\.jsonl row 1: type '简答' and id '12'"),
        ({"id": "a7"}, r"business\.jsonl row 1: type '判断' and id 'a7'"),
        ({"question": '<img="q_9.png">'}, r"business\.jsonl row 1 names .*q_9\.png, which is not"),
        ({"type": "选择"}, r"business\.jsonl row 1: there are no choices"),
        ({"category": None}, r"business\.jsonl row 1: the field 'category' should be a text"),
    ],
)
def test_broken_rows_are_named(changes, message, tmp_path):
    write(tmp_path, {"business": [{**BUSINESS[1], **changes}]})
    with pytest.raises(DataError, match=message):
        CMMMU(data=tmp_path, options=OPTIONS).examples()


def test_a_broken_picture_names_its_row(quiz):
    (quiz / "cmmmu-data-val" / "science" / "q_1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"science\.jsonl row 1, .*q_1\.png: its picture"):
        CMMMU(data=quiz, options=OPTIONS).examples()


def test_two_questions_of_one_number_are_refused(tmp_path):
    write(tmp_path, {"business": [BUSINESS[1]] * 2})
    with pytest.raises(DataError, match="the example '12' is there twice"):
        CMMMU(data=tmp_path, options=OPTIONS).examples()


def test_a_missing_folder_shows_the_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\ncmmmu-data-val/business/business"):
        CMMMU(data=tmp_path / "none", options=OPTIONS).examples()
