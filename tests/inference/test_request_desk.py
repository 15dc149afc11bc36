import time

import pytest

from mllm_npu.errors import BusyError, RequestError
from mllm_npu.inference.events import Finished, TextDelta
from mllm_npu.inference.request_desk import RequestDesk
from mllm_npu.inference.ticket import Ticket

END = Finished(reason="stop", num_prompt_tokens=1, num_new_tokens=1, num_pictures=0)


class Row:
    error = None


@pytest.fixture
def gone():
    return []


@pytest.fixture
def desk(gone):
    return RequestDesk(max_queue=3, max_seconds=5.0, forget=gone.append)


@pytest.fixture
def enter(desk):
    def make():
        ticket = Ticket(
            row=Row(),
            sample=None,
            names=(),
            begun=time.monotonic(),
            changed=desk.note_cancelled,
            find_position=desk.position,
        )
        desk.enter(ticket)
        return ticket

    return make


def test_the_first_to_come_is_the_first_to_be_answered(desk, enter):
    tickets = [enter() for _ in range(3)]
    assert [ticket.position for ticket in tickets] == [1, 2, 3]
    assert desk.admit(2) == tickets[:2]
    assert [ticket.position for ticket in tickets] == [0, 0, 1]
    assert desk.admit(5) == tickets[2:]


def test_a_full_queue_refuses(desk, enter):
    for _ in range(3):
        enter()
    with pytest.raises(BusyError, match="3 requests wait"):
        enter()
    desk.admit(1)
    enter()


def test_events_go_to_their_ticket_and_the_last_one_ends_it(desk, enter, gone):
    ticket = enter()
    desk.admit(1)
    desk.deliver(ticket.row, [TextDelta(text="a")])
    desk.deliver(ticket.row, [END])
    assert list(ticket) == [TextDelta(text="a"), END]
    assert gone == [ticket.row]
    assert desk.live == {}
    desk.deliver(ticket.row, [TextDelta(text="late")])
    assert desk.meter.counts == {"finished": 1}
    assert len(desk.meter.first_token_seconds) == 1


def test_the_error_of_a_request_goes_to_its_ticket(desk, enter, gone):
    ticket = enter()
    desk.admit(1)
    ticket.row.error = ZeroDivisionError()
    desk.deliver(ticket.row, [])
    with pytest.raises(ZeroDivisionError):
        next(ticket)
    assert (gone, desk.meter.counts["failed"]) == ([ticket.row], 1)


def test_who_was_cancelled_leaves_the_queue_or_the_slots(desk, enter):
    waiting, running, other = enter(), enter(), enter()
    assert desk.leave_cancelled() == []
    desk.queue.remove(running)
    desk.live[running.row] = running
    waiting.cancel()
    running.cancel()
    assert desk.leave_cancelled() == [waiting.row, running.row]
    assert (list(waiting), list(running), list(desk.queue)) == ([], [], [other])
    assert desk.meter.counts["cancelled"] == 2


def test_who_waited_too_long_is_told_so(desk, enter):
    late, other = enter(), enter()
    late.begun -= 6
    assert (desk.is_late(late), desk.is_late(other)) == (True, False)
    desk.leave_late()
    with pytest.raises(BusyError, match=r"waited 5\.0 seconds"):
        next(late)
    assert list(desk.queue) == [other]


def test_all_can_be_ended(desk, enter):
    tickets = [enter() for _ in range(3)]
    desk.admit(1)
    desk.end_all(RequestError("over"))
    for ticket in tickets:
        with pytest.raises(RequestError, match="over"):
            next(ticket)
    assert (len(desk.queue), len(desk.live)) == (0, 0)
