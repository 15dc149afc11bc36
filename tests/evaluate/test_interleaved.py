from mllm_npu.evaluate.interleaved import weave

MARK = r"<image (\d+)>"


def test_pictures_stand_where_their_marks_are():
    pictures = {"1": object(), "2": object()}
    woven = weave("See <image 2> and <image 1>.", MARK, pictures.__getitem__)
    assert woven == ["See ", pictures["2"], " and ", pictures["1"], "."]


def test_marks_at_the_ends_leave_no_empty_texts():
    one = object()
    assert weave("<image 1><image 1>", MARK, lambda name: one) == [one, one]


def test_a_text_without_marks_is_left_as_it_is():
    assert weave("Nothing <image> here", MARK, lambda name: None) == ["Nothing <image> here"]
