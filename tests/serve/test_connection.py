"""Work goes on while its client is there."""

import asyncio

import pytest

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.connection import CLIENT_GONE_STATUS, while_connected


class Request:
    def __init__(self, leaves_after=None):
        self.leaves_after = leaves_after

    async def receive(self):
        await asyncio.sleep(60 if self.leaves_after is None else self.leaves_after)
        return {"type": "http.disconnect"}


def run(request, work, seconds=10):
    return asyncio.run(while_connected(request, work, seconds=seconds))


async def work(seconds, ended, error=None):
    try:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return 7
    finally:
        ended.append(True)


def test_work_is_done():
    assert run(Request(), work(0.01, [])) == 7


def test_its_error_comes_through():
    with pytest.raises(ValueError, match="no"):
        run(Request(), work(0.01, [], ValueError("no")))


@pytest.mark.parametrize(
    ("request_", "seconds", "status"),
    [(Request(0.05), 10, CLIENT_GONE_STATUS), (Request(), 0.05, 504)],
)
def test_it_is_called_off(request_, seconds, status):
    ended = []
    with pytest.raises(ApiError) as caught:
        run(request_, work(30, ended), seconds)
    assert caught.value.status == status
    assert ended == [True]
