from mllm_npu.inference.event_order import EventOrder
from mllm_npu.inference.events import TextDelta

A, B, C, PICTURE, SECOND = (TextDelta(text=letter) for letter in "abcpq")


def test_what_stands_behind_a_picture_waits_for_it():
    order = EventOrder()
    assert order.add([A]) == [A]
    order.leave_gap(0)
    assert order.add([B]) == []
    assert order.is_blocked
    assert order.fill_gap(0, PICTURE) == [PICTURE, B]
    assert not order.is_blocked
    assert order.add([C]) == [C]


def test_pictures_may_be_ready_in_another_order():
    order = EventOrder()
    order.leave_gap(0)
    order.add([A])
    order.leave_gap(1)
    order.add([B])
    assert order.fill_gap(1, SECOND) == []
    assert order.fill_gap(0, PICTURE) == [PICTURE, A, SECOND, B]
