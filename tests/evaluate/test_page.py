import base64
import io

from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.page import count_confusions, make_tile, pick_examples
from mllm_npu.evaluate.prompt import put_question
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.processing.conversation import ask
from mllm_npu.processing.raster import StoredPicture


def open_tile(tile):
    head, data = tile.source.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_tile_holds_the_very_pixels(fakes):
    picture = fakes.noise_picture(1)
    tile = make_tile(picture, "a caption", is_wrong=True)
    assert open_tile(tile).tobytes() == picture.tobytes()
    assert (tile.caption, tile.is_wrong) == ("a caption", True)


def test_confusions_have_a_column_for_everything_else():
    counts = count_confusions([0, 0, 1, 1, 1], [0, 1, 1, None, 7], 2)
    assert counts == [[1, 1, 0], [0, 1, 2]]


def test_examples_are_split_and_spread_over_the_task(fakes):
    pairs = [(str(number), "x" if number % 10 == 0 else str(number)) for number in range(100)]
    shown = pick_examples(fakes.make_result(*pairs), num=3)
    assert (shown.num_right, shown.num_wrong) == (90, 10)
    assert [example.answer for example in shown.wrong] == ["0", "30", "60"]
    assert [example.answer for example in shown.right] == ["1", "34", "67"]
    assert shown.title == "Says it again"


def test_few_examples_are_all_shown(fakes):
    shown = pick_examples(fakes.make_result(("a", "a"), ("b", "x")), num=6)
    assert (len(shown.right), len(shown.wrong)) == (1, 1)


def test_an_example_shows_what_was_seen_asked_and_said(fakes):
    [shown] = pick_examples(fakes.make_result(("a", "x"))).wrong
    assert (shown.question, shown.answer, shown.understood) == ("Say a", "a", "x")
    assert open_tile(shown.pictures[0]).getpixel((0, 0)) == (255, 0, 0)
    assert shown.drawn == []


def test_a_drawing_is_followed_by_what_was_wanted(fakes):
    drawn, truth = fakes.noise_picture(1), fakes.noise_picture(2)
    record = fakes.make_record("a", "a", pictures=[drawn], truth=truth)
    [shown] = pick_examples(TaskResult(task=fakes.EchoTask([]), records=(record,))).right
    assert [open_tile(tile).tobytes() for tile in shown.drawn] == [
        drawn.tobytes(),
        truth.tobytes(),
    ]


def test_solved_examples_are_counted_and_not_shown(fakes):
    put = put_question(["Which?"], frame="plain", shots=("1 ", "2 "), intro="Hello. ")
    record = fakes.make_record("a", "a", conversation=put, num_shots=2, first_shot=1)
    [shown] = pick_examples(TaskResult(task=fakes.EchoTask([]), records=(record,))).right
    assert shown.question == "(2 solved examples) Hello. Which?"


def test_a_photo_is_made_small_and_a_broken_picture_left_out(fakes):
    def fail(data):
        raise DataError("no picture")

    broken = StoredPicture(data=b"x", size=(1, 1), decoder=fail)
    photo = fakes.noise_picture(1, (1000, 500))
    record = fakes.make_record("a", "a", conversation=ask("q", [broken, photo]))
    [shown] = pick_examples(TaskResult(task=fakes.EchoTask([]), records=(record,))).right
    [tile] = shown.pictures
    head, data = tile.source.split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 128)
