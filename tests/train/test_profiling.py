import gzip
import io
import json

import pytest
import torch
from rich.console import Console

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.train.profiling import Profile


def train(profile, num_steps):
    """A loop as small as one can be; its last step is told like every other one."""
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with profile:
        for _ in range(num_steps):
            layer(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            profile.step()


def make(folder, **options):
    text = io.StringIO()
    return Profile(folder=folder, console=Console(file=text, width=300), **options), text


def read_events(profile):
    with gzip.open(profile.trace_path) as file:
        return json.load(file)["traceEvents"]


def test_a_few_steps_become_a_trace_and_a_table(tmp_path):
    profile, text = make(tmp_path / "profile")
    train(profile, 8)
    names = [event.get("name", "") for event in read_events(profile)]
    assert {"aten::addmm", "aten::sum", "Optimizer.step#SGD.step"} <= set(names)
    steps = {name for name in names if name.startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#3", "ProfilerStep#4", "ProfilerStep#5"}
    assert "aten::addmm" in profile.table_path.read_text()
    assert text.getvalue().count("\n") == 1
    assert f"3 steps are in {profile.trace_path}" in text.getvalue()
    assert sorted(path.name for path in profile.folder.iterdir()) == [
        "rank0.operations.txt",
        "rank0.trace.json.gz",
    ]


def test_it_is_over_when_its_steps_are_recorded(tmp_path):
    profile, text = make(tmp_path, wait=0, warmup=1, active=1)
    with profile:
        for step in range(4):
            torch.ones(2).add(1)
            profile.step()
            assert profile.trace_path.exists() == (step >= 1)
            assert profile.is_running == torch.autograd._profiler_enabled() == (step < 1)
    assert text.getvalue().count("profile:") == 1


def test_the_shapes_of_inputs_can_be_recorded(tmp_path):
    for record_shapes in (False, True):
        profile, _ = make(tmp_path / str(record_shapes), record_shapes=record_shapes)
        train(profile, 6)
        told = [e["args"] for e in read_events(profile) if e.get("name") == "aten::addmm"]
        assert told
        assert all(("Input Dims" in args) == record_shapes for args in told)


@pytest.mark.parametrize(("rank", "ranks"), [(1, (0,)), (0, ()), (0, (1, 2))])
def test_other_ranks_do_nothing(tmp_path, rank, ranks):
    profile, text = make(tmp_path / "profile", rank=rank, ranks=ranks)
    with profile:
        for _ in range(8):
            profile.step()
            assert not torch.autograd._profiler_enabled()
    assert not profile.folder.exists()
    assert text.getvalue() == ""


def test_ranks_have_files_of_their_own(tmp_path):
    for rank in (0, 3):
        profile, _ = make(tmp_path, rank=rank, ranks=(0, 3), wait=0)
        train(profile, 4)
    assert sorted(path.name for path in tmp_path.glob("*.gz")) == [
        "rank0.trace.json.gz",
        "rank3.trace.json.gz",
    ]


def test_a_run_that_ends_early_keeps_what_was_recorded(tmp_path):
    profile, text = make(tmp_path)
    train(profile, 5)
    steps = {e["name"] for e in read_events(profile) if "ProfilerStep#" in e.get("name", "")}
    assert {"ProfilerStep#3", "ProfilerStep#4"} <= steps
    assert "profile: 2 steps are in" in text.getvalue()


@pytest.mark.parametrize("num_steps", [0, 2, 3])
def test_a_run_that_ends_before_says_so(tmp_path, num_steps):
    profile, text = make(tmp_path)
    train(profile, num_steps)
    assert list(tmp_path.iterdir()) == []
    assert f"nothing was recorded, because the run had {num_steps} steps" in text.getvalue()


def test_a_step_that_fails_passes_and_ends_the_profile(tmp_path):
    def fail_after_two():
        with profile:
            profile.step()
            profile.step()
            raise ZeroDivisionError

    profile, _ = make(tmp_path, wait=0)
    with pytest.raises(ZeroDivisionError):
        fail_after_two()
    assert profile.trace_path.exists()
    assert not torch.autograd._profiler_enabled()


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    profile, _ = make(tmp_path / "file" / "profile", wait=0)
    with pytest.raises(DataError, match=r"profile was to be written.*profile=false"):
        train(profile, 6)
    assert not torch.autograd._profiler_enabled()


@pytest.mark.parametrize("numbers", [{"wait": -1}, {"warmup": 0}, {"active": 0}])
def test_numbers_that_make_no_sense_are_refused(tmp_path, numbers):
    with pytest.raises(ConfigError, match=f"{next(iter(numbers))}={next(iter(numbers.values()))}"):
        Profile(folder=tmp_path, **numbers)
