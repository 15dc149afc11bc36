import threading
import time

import pytest

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import Finished, TextDelta
from mllm_npu.inference.ticket import Ticket

END = Finished(reason="stop", num_prompt_tokens=1, num_new_tokens=1, num_pictures=0)


def make_ticket(changed=lambda: None):
    return Ticket(
        row=None,
        sample=None,
        names=(),
        begun=time.monotonic() - 2,
        changed=changed,
        find_position=lambda _: 3,
    )


def test_it_blocks_for_the_next_event_and_ends_behind_the_last():
    ticket = make_ticket()
    said = [TextDelta(text="a"), TextDelta(text="b"), END]
    threading.Timer(0.05, lambda: [ticket.put(event) for event in said]).start()
    assert list(ticket) == said
    assert list(ticket) == []
    assert ticket.position == 3


def test_how_long_the_first_token_took_is_kept():
    ticket = make_ticket()
    assert ticket.first_token is None
    assert ticket.note_token()
    first = ticket.first_token
    assert 2 <= first < 60
    assert not ticket.note_token()
    assert ticket.first_token == first


def test_the_error_of_a_request_is_raised_behind_its_events():
    ticket = make_ticket()
    ticket.put(TextDelta(text="a"))
    ticket.end(RequestError("no"))
    assert next(ticket) == TextDelta(text="a")
    with pytest.raises(RequestError, match="no"):
        next(ticket)
    assert list(ticket) == []


def test_cancelling_tells_the_engine_and_the_events_end():
    told = []
    ticket = make_ticket(lambda: told.append(1))
    ticket.cancel()
    ticket.end()
    assert (ticket.cancelled, told, list(ticket)) == (True, [1], [])
