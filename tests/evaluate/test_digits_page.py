import pytest

from mllm_npu.evaluate.digits_page import (
    digit_of,
    drawing_confusion,
    drawn_gallery,
    reading_confusion,
    redrawn_gallery,
)
from mllm_npu.evaluate.real_digits import Redrawn, Scans
from mllm_npu.evaluate.runner import TaskResult


@pytest.fixture
def scans(fakes):
    pictures = [fakes.noise_picture(number) for number in range(40)]
    return Scans(pictures=pictures, digits=[number % 10 for number in range(40)])


@pytest.fixture
def drawn(fakes):
    """Digits 0 to 9 twice: the 3 is taken for an 8, the second 5 was not drawn."""
    records = []
    for number in range(20):
        seen = "8" if number % 10 == 3 else "no picture" if number == 15 else str(number % 10)
        pictures = [] if number == 15 else [fakes.noise_picture(number)]
        records.append(fakes.make_record(str(number % 10), seen, number, pictures))
    return TaskResult(task=fakes.EchoTask([]), records=tuple(records))


def test_each_digit_has_a_row_of_real_and_drawn_ones(scans, drawn):
    gallery = drawn_gallery(scans, drawn)
    assert [row.label for row in gallery.rows] == list("0123456789")
    assert [len(row.real) for row in gallery.rows] == [4] * 10
    assert [len(row.drawn) for row in gallery.rows] == [2] * 5 + [1] + [2] * 4


def test_wrong_drawings_are_marked_and_say_why(scans, drawn):
    gallery = drawn_gallery(scans, drawn)
    marked = [row.label for row in gallery.rows if any(tile.is_wrong for tile in row.drawn)]
    assert marked == ["3"]
    assert gallery.rows[3].drawn[0].caption == "asked for 3, judged 8"


def test_drawing_confusions_count_what_was_not_drawn(drawn):
    counts = drawing_confusion(drawn).counts
    assert counts[3][8] == 2
    assert counts[5] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert sum(map(sum, counts)) == 20
    assert digit_of(drawn.records[15]) is None


def test_reading_confusions_understand_words(fakes):
    result = fakes.make_result(
        ("seven", "seven"), ("seven", "one"), ("two", "eleven"), ("two", "?")
    )
    counts = reading_confusion(result).counts
    assert counts[7][7] == counts[7][1] == 1
    assert counts[2][-1] == 2


def test_redrawn_scans_stand_beside_the_real_ones(scans):
    seen = [digit if number != 9 else 0 for number, digit in enumerate(scans.digits)]
    redrawn = Redrawn(scans=scans, pictures=scans.pictures, seen=seen, errors=[0.0] * 40)
    gallery = redrawn_gallery(redrawn)
    assert [len(row.real) for row in gallery.rows] == [8, 8, 8]
    assert gallery.rows[1].drawn[1].is_wrong
    assert sum(tile.is_wrong for row in gallery.rows for tile in row.drawn) == 1


def test_few_scans_make_few_rows(scans):
    few = scans.first(3)
    redrawn = Redrawn(scans=few, pictures=few.pictures, seen=few.digits, errors=[0.0] * 3)
    assert [len(row.drawn) for row in redrawn_gallery(redrawn).rows] == [3]
