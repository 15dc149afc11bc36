"""The original's workers and clients find the endpoints they know."""

import asyncio

import httpx
import pytest

from mllm_npu.serve.controller import create_app
from mllm_npu.serve.dispatch import ShortestQueue
from mllm_npu.serve.registry import Registry
from mllm_npu.serve.security import ApiKeys

WORKER = "http://127.0.0.1:9"
STATUS = {"model_names": ["seed-x"], "speed": 2, "queue_length": 3}


class Controller:
    """An app that is asked without a network, by a client of this machine."""

    def __init__(self, *, host="127.0.0.1", token=None):
        self.registry = Registry()
        self.app = create_app(
            registry=self.registry, pick=ShortestQueue(), keys=ApiKeys(), token=token
        )
        self.host = host

    def post(self, path, *, token=None, **body):
        async def ask():
            transport = httpx.ASGITransport(self.app, client=(self.host, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
                headers = {"authorization": f"Bearer {token}"} if token else {}
                return await client.post(path, json=body, headers=headers)

        return asyncio.run(ask())

    def register(self, **changes):
        said = {"worker_name": WORKER, "check_heart_beat": True, "worker_status": STATUS}
        return self.post("/register_worker", **(said | changes))


@pytest.fixture
def controller():
    return Controller()


def test_a_worker_registers_and_is_offered(controller):
    assert controller.register().status_code == 200
    assert controller.post("/list_models").json() == {"models": ["seed-x"]}
    assert controller.post("/get_worker_address", model="seed-x").json() == {"address": WORKER}
    assert controller.post("/get_worker_address", model="other").json() == {"address": ""}
    assert controller.post("/worker_get_status").json() == STATUS


def test_a_heartbeat_says_whether_it_is_known(controller):
    beat = {"worker_name": WORKER, "queue_length": 7}
    assert controller.post("/receive_heart_beat", **beat).json() == {"exist": False}
    controller.register()
    assert controller.post("/receive_heart_beat", **beat).json() == {"exist": True}
    assert controller.post("/worker_get_status").json()["queue_length"] == 7


def test_without_heartbeats_it_stays(controller):
    controller.register(check_heart_beat=False)
    [worker] = controller.registry
    assert worker.beats is False


def test_refreshing_forgets_who_does_not_answer(controller):
    controller.register()
    assert controller.post("/refresh_all_workers").status_code == 200
    assert len(controller.registry) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"worker_status": None},
        {"worker_name": "file:///etc/passwd"},
        {"worker_name": "http://user@127.0.0.1"},
        {"worker_status": {**STATUS, "speed": 0}},
        {"worker_status": {**STATUS, "queue_length": -1}},
        {"worker_status": {**STATUS, "model_names": ["x"] * 65}},
    ],
)
def test_what_is_no_worker_is_refused(controller, changes):
    reply = controller.register(**changes)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(next(iter(changes)))
    assert len(controller.registry) == 0


def test_workers_of_other_machines_need_the_token():
    open_one, closed_one = Controller(host="10.0.0.9"), Controller(token="token-of-tests")
    assert open_one.register().status_code == 403
    assert closed_one.register().status_code == 401
    assert closed_one.post("/refresh_all_workers").status_code == 401
    assert closed_one.register(token="token-of-tests").status_code == 200
    assert open_one.post("/list_models").status_code == 200
