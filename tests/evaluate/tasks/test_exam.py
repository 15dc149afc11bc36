"""Invented questions in the layout of exams."""

import zipfile
from dataclasses import replace

import pytest

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.choices import read_letter
from mllm_npu.evaluate.prompt import drop_shot
from mllm_npu.evaluate.tasks.exam import (
    ExamPaper,
    ExamQuestion,
    ExamTable,
    first_shots,
    is_right,
    subjects_figure,
)
from mllm_npu.inference.events import Likelihood
from mllm_npu.inference.options import GenerationOptions

TABLE = ExamTable(key="id", question="question", answer="answer")
HEAD = "id,question,A,B,C,D,answer\n"
QUESTION = ExamQuestion(
    key="7", question="Which is wet?", choices=("fire", "rain", "sand", "wind"), answer="B"
)
SHOT = ExamQuestion(
    key="0", question="Which is hot?", choices=("fire", "ice", "x", "y"), answer="A"
)


@pytest.fixture
def table(tmp_path):
    def read(text, **changes):
        (tmp_path / "exam").mkdir(exist_ok=True)
        (tmp_path / "exam" / "art.csv").write_text(text, encoding="utf-8")
        files = BenchmarkFiles(tmp_path / "exam", layout="exam/art.csv")
        known = {"key": "id", "question": "question", "answer": "answer", **changes}
        return ExamTable(**known).read(files, "art.csv")

    return read


def paper(**changes):
    values = {
        "by": "likelihood",
        "frame": "plain",
        "options": GenerationOptions(),
        "ending": "\nAnswer:",
        "blank": " ",
    }
    return ExamPaper(**{**values, **changes})


def ask(shots=(SHOT, SHOT), intro="About weather.\n\n", **changes):
    asked = paper(**changes).ask(
        [QUESTION], subject="weather", intro=intro, shots=shots, groups=("nature",)
    )
    return asked[0]


def texts(example):
    return [part.text for part in example.conversation.turns[-1].parts]


def test_a_row_is_a_question(table):
    text = HEAD + '3,"A comma, or two?",one,two,"th""ree",four,C\n'
    choices = ("one", "two", 'th"ree', "four")
    assert table(text) == [
        ExamQuestion(key="3", question="A comma, or two?", choices=choices, answer="C")
    ]


def test_rows_without_a_key_have_their_place_and_columns_may_have_no_names(table):
    names = ("question", "A", "B", "C", "D", "answer")
    found = table("what,a,b,c,d,D\nwho,a,b,c,d,A\n", key=None, names=names)
    assert [(each.key, each.question, each.answer) for each in found] == [
        ("0", "what", "D"),
        ("1", "who", "A"),
    ]


def test_answers_that_are_not_published_are_empty(table):
    assert table("id,question,A,B,C,D\n0,q,a,b,c,d\n", answer=None)[0].answer == ""


@pytest.mark.parametrize("answer", ["E", "", "AB", "a", "1"])
def test_an_answer_that_is_no_letter_is_refused_with_its_row(table, answer):
    with pytest.raises(DataError, match=r"art.csv in .*, row 2 \(9\): the answer is .* A, B, C, D"):
        table(HEAD + f"8,q,a,b,c,d,B\n9,q,a,b,c,d,{answer}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + " ,q,a,b,c,d,B\n", "row 1: its 'id' is empty"),
        ("id,question,A,B,C,answer\n0,q,a,b,c,B\n", r"there are no columns \['D'\]"),
        (HEAD, "has no questions"),
        (HEAD + "0,q,a,b,c,d\n", "7 columns are expected"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(table, text, message):
    with pytest.raises(DataError, match=message):
        table(text)


def test_a_folder_may_be_a_zip_of_that_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "exam.zip", "w") as archive:
        archive.writestr("any/name/art.csv", HEAD + "0,q,a,b,c,d,B\n")
    files = BenchmarkFiles(tmp_path / "exam", layout="exam/art.csv")
    assert files.path == tmp_path / "exam.zip"
    assert TABLE.read(files, "art.csv")[0].answer == "B"


def test_a_folder_is_preferred_to_a_zip_of_that_name(tmp_path):
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "art.csv").write_text(HEAD + "0,q,a,b,c,d,A\n")
    with zipfile.ZipFile(tmp_path / "exam.zip", "w") as archive:
        archive.writestr("art.csv", HEAD + "0,q,a,b,c,d,B\n")
    files = BenchmarkFiles(tmp_path / "exam", layout="exam/art.csv")
    assert TABLE.read(files, "art.csv")[0].answer == "A"


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "art.csv").write_text(HEAD + "0,q,a,b,c,d,A\n")
    files = BenchmarkFiles(tmp_path, layout="exam/art.csv")
    with pytest.raises(DataError, match=r"there are 2 of art.csv: new/art.csv, old/art.csv"):
        files.find_one("art.csv")


def test_a_question_stands_after_solved_ones_and_each_is_a_part():
    example = ask()
    hot = "Which is hot?\nA. fire\nB. ice\nC. x\nD. y\nAnswer: A\n\n"
    wet = "Which is wet?\nA. fire\nB. rain\nC. sand\nD. wind\nAnswer:"
    assert texts(example) == ["About weather.\n\n", hot, hot, wet]
    assert (example.first_shot, example.num_shots) == (1, 2)
    assert example.conversation.turns[-1].role == "document"
    assert example.choices == (" A", " B", " C", " D")
    assert (example.name, example.answer) == ("weather/7", "B")
    assert example.groups == ("nature", "weather")


def test_shots_can_be_dropped_where_the_example_says():
    example = ask()
    last = example.first_shot + example.num_shots - 1
    shorter = drop_shot(example.conversation, last)
    kept = [part.text for part in shorter.turns[-1].parts]
    assert kept == [*texts(example)[:last], *texts(example)[last + 1 :]]


def test_without_shots_and_intro_the_question_is_alone():
    example = ask(shots=(), intro="")
    assert (example.first_shot, example.num_shots, len(texts(example))) == (0, 0, 1)


def test_in_a_chat_a_letter_follows_nothing():
    example = ask(frame="chat")
    assert example.choices == ("A", "B", "C", "D")
    assert example.conversation.turns[-1].role == "user"
    assert texts(example)[1].endswith("Answer: A\n\n")


@pytest.mark.parametrize(("frame", "stop"), [("plain", ("###", "\n\n")), ("chat", ("###",))])
def test_a_written_reply_has_no_pictures_and_ends_where_a_shot_ends(frame, stop):
    example = ask(frame=frame, by="generation", options=GenerationOptions(stop=("###",)))
    assert example.choices == ()
    assert (example.options.images, example.options.stop) == ("forbid", stop)


@pytest.mark.parametrize("shots", [-1, 3])
def test_more_shots_than_there_are_cannot_be_had(shots):
    with pytest.raises(ConfigError, match=rf"shots={shots} was asked for, dev.csv has 2 .* 0 to 2"):
        first_shots([SHOT, SHOT], shots, "dev.csv")
    assert first_shots([SHOT, QUESTION], 1, "dev.csv") == [SHOT]


def test_a_category_is_the_mean_of_its_subjects(fakes):
    scores = {"big": [1, 0, 0, 0], "small": [1]}
    records = [
        fakes.make_record("B", "B" if score else "C", number, groups=("nature", subject))
        for subject, own in scores.items()
        for number, score in enumerate(own)
    ]
    figure = subjects_figure(records, name="exam/nature", title="nature")
    assert figure.value == pytest.approx((1 / 4 + 1) / 2)
    assert (figure.num, figure.level, figure.num_unread) == (5, 1, 0)


def test_the_likeliest_letter_is_the_reply(fakes):
    weighed = tuple(
        Likelihood(text=f" {letter}", logprob=logprob, num_tokens=1, is_greedy=False)
        for letter, logprob in zip("ABCD", (-3.0, -1.0, -2.0, -9.0), strict=True)
    )
    reply = replace(fakes.make_reply("nothing to read"), choices=weighed)
    assert is_right(ask(), reply) == 1.0


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        (" B\n", "B"),
        ("(C) sand", "C"),
        ("D. wind", "D"),
        ("A", "A"),
        ("The answer is A.", "A"),
        ("The answer is (b)", "B"),
        ("It must be A.", "A"),
        ("Rain is wet, so B is right.", "B"),
        ("Option C, not A", "C"),
        ("选B", "B"),
        ("选项A", "A"),
        ("正确答案是选项A。", "A"),
        ("答案应选D", "D"),
        ("我认为A是正确的", "A"),
        ("The answer is a matter of taste.", None),
        ("It is A great question.", None),
        ("As a rule, a good answer needs time.", None),
        ("Better ask an expert", None),
        ("E", None),
        ("不知道", None),
        ("", None),
    ],
)
def test_letters_of_written_replies(said, letter):
    assert read_letter(said, 4) == letter
