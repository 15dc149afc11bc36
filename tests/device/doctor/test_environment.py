"""Variables of a shell beside the table, one by one and together."""

import pytest

from mllm_npu.device.doctor import environment
from mllm_npu.device.doctor.environment import examine_environment
from mllm_npu.device.doctor.variables import VARIABLES


@pytest.fixture(autouse=True)
def interfaces(monkeypatch):
    monkeypatch.setattr(environment, "_interfaces", lambda: {"lo", "eth0", "enp61s0f1"})


def look(name: str, on_npu: bool = True, **variables: str):
    checks = examine_environment(variables, on_npu=on_npu)
    return next(check for check in checks if check.name == f"env {name}")


def test_without_an_npu_every_row_is_an_aside_and_good():
    checks = examine_environment({}, on_npu=False)
    assert len(checks) == len(VARIABLES) + 2
    assert all(check.is_aside and check.state == "good" for check in checks)
    worst = examine_environment({"TASK_QUEUE_ENABLE": "0"}, on_npu=False)
    assert all(check.is_aside and check.state == "good" for check in worst)


def test_on_an_npu_what_is_wanted_and_not_set_is_noticed():
    noticed = {check.name for check in examine_environment({}, on_npu=True) if not check.is_aside}
    assert noticed == {
        "env PYTORCH_NPU_ALLOC_CONF",
        "env CPU_AFFINITY_CONF",
        "env HCCL_CONNECT_TIMEOUT",
    }


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True", "good"),
        ("PYTORCH_NPU_ALLOC_CONF", "segment_size_mb:40,expandable_segments:true", "good"),
        ("PYTORCH_NPU_ALLOC_CONF", "max_split_size_mb:32", "notice"),
        ("TASK_QUEUE_ENABLE", "2", "good"),
        ("TASK_QUEUE_ENABLE", "0", "notice"),
        ("CPU_AFFINITY_CONF", "1,npu0:0-1", "good"),
        ("CPU_AFFINITY_CONF", "0", "notice"),
        ("HCCL_CONNECT_TIMEOUT", "120", "notice"),
        ("HCCL_CONNECT_TIMEOUT", "7200", "good"),
        ("ASCEND_LAUNCH_BLOCKING", "1", "notice"),
        ("HCCL_ASYNC_ERROR_HANDLING", "0", "notice"),
        ("HCCL_BUFFSIZE", "2048", "notice"),
        ("HCCL_DETERMINISTIC", "true", "good"),
        ("ASCEND_RT_VISIBLE_DEVICES", "0,1,2", "good"),
        ("ASCEND_RT_VISIBLE_DEVICES", "all", "notice"),
        ("ASCEND_GLOBAL_LOG_LEVEL", "0", "notice"),
        ("INF_NAN_MODE_ENABLE", "0", "notice"),
        ("TORCH_TRANSFER_TO_NPU", "1", "notice"),
    ],
)
def test_a_value_is_judged(name, value, state):
    check = look(name, **{name: value})
    assert check.state == state
    assert check.found == value
    assert not check.is_aside
    assert bool(check.advice) is (state != "good")


def test_the_allocators_other_name_counts():
    assert look("PYTORCH_NPU_ALLOC_CONF", PYTORCH_ALLOC_CONF="expandable_segments:True").found


def test_two_names_of_one_setting_end_the_process():
    both = dict.fromkeys(environment.ALLOCATORS, "expandable_segments:True")
    check = look("allocator", **both)
    assert check.state == "bad"
    assert check.advice == "unset PYTORCH_ALLOC_CONF"
    assert look("allocator", on_npu=False, **both).state == "notice"


def test_settings_of_the_allocator_that_exclude_each_other_are_bad():
    value = "expandable_segments:True,max_split_size_mb:64"
    check = look("allocator", PYTORCH_NPU_ALLOC_CONF=value)
    assert check.state == "bad"
    assert "max_split_size_mb" in check.found


@pytest.mark.parametrize(
    ("execution", "event", "state", "advice"),
    [
        (None, None, "good", ""),
        ("1800", "1868", "good", ""),
        ("3600", None, "bad", "HCCL_EVENT_TIMEOUT=3632"),
        ("3600", "0", "good", ""),
        ("0", "1868", "bad", "HCCL_EVENT_TIMEOUT=0"),
        ("30m", None, "bad", "unset"),
    ],
)
def test_an_event_waits_longer_than_a_collective(execution, event, state, advice):
    given = {"HCCL_EXEC_TIMEOUT": execution, "HCCL_EVENT_TIMEOUT": event}
    check = look("timeouts", **{name: value for name, value in given.items() if value is not None})
    assert check.state == state
    assert advice in check.advice


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [
        ("GLOO_SOCKET_IFNAME", "eth0", "good"),
        ("GLOO_SOCKET_IFNAME", "eth0,lo", "good"),
        ("GLOO_SOCKET_IFNAME", "eth", "bad"),
        ("GLOO_SOCKET_IFNAME", "bond0", "bad"),
        ("HCCL_SOCKET_IFNAME", "enp", "good"),
        ("HCCL_SOCKET_IFNAME", "=enp", "bad"),
        ("HCCL_SOCKET_IFNAME", "=enp61s0f1", "good"),
        ("HCCL_SOCKET_IFNAME", "^docker0", "good"),
    ],
)
def test_an_interface_that_is_not_here_is_bad_everywhere(name, value, state):
    for on_npu in (True, False):
        check = look(name, on_npu=on_npu, **{name: value})
        assert check.state == state
    if state == "bad":
        assert "enp61s0f1, eth0, lo" in check.advice


def test_the_real_interfaces_can_be_listed(monkeypatch):
    monkeypatch.undo()
    assert "lo" in environment._interfaces()
