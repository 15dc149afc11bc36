"""What is logged at a look, what is measured when, and that bad updates are told before a stop."""

from types import SimpleNamespace

import pytest
import torch

from mllm_npu.batch import Losses, LossTerm
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import TrainingError
from mllm_npu.probe import Measured, Probe
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.observer import Observer
from mllm_npu.train.throughput import Throughput


class Notes:
    """Stands for a recorder."""

    def __init__(self):
        self.logged, self.measured, self.faults = [], [], []

    def log(self, step, values):
        self.logged.append((step, values))

    def log_probe(self, step, measured):
        self.measured.append((step, measured))

    def tell_fault(self, fault, *, rank):
        self.faults.append((rank, fault.outcome.step))


class Other(Mesh):
    """A rank that writes no files."""

    is_main = False


class Counting(Probe):
    """Counts how often it measured; leaves evaluation mode behind."""

    def __init__(self, *, every, picture=None):
        super().__init__(every=every)
        self.times = 0
        self.picture = picture

    def measure(self, placed):
        self.times += 1
        self.phase = placed.mesh.progress.phase
        placed.module.eval()
        pictures = {} if self.picture is None else {"grid": self.picture}
        return Measured(values={"times": self.times}, pictures=pictures)


@pytest.fixture
def make():
    def make_observer(mesh=None, *, faults=None, probes=None, thread_watch=None):
        return Observer(
            mesh=mesh or Mesh.single(),
            recorder=Notes(),
            faults=faults or FaultPolicy(),
            throughput=Throughput(),
            probes=probes or {},
            thread_watch=thread_watch,
        )

    return make_observer


@pytest.fixture
def take(make_batch):
    """Lets an observer see an update of given losses, one per micro-batch."""
    batch = make_batch("rd")

    def take_update(observer, step, *losses, norm=1.0):
        for loss in losses:
            term = LossTerm(total=torch.tensor(loss * batch.num_targets), count=batch.num_targets)
            observer.meter.add(step, batch, Losses(terms={"language": term}), torch.tensor(loss))
        observer.meter.end_step(step, torch.tensor(norm))
        observer.throughput.count([batch] * len(losses))

    return take_update


def look(observer, step, **changes):
    return observer.look(step, **{"lr": 0.5, "skipped": {}, **changes})


def test_nothing_is_logged_while_nothing_has_happened(make):
    observer = make()
    assert look(observer, 0) == []
    assert observer.recorder.logged == []


def test_a_look_logs_the_means_since_the_last_one(make, take):
    observer = make()
    take(observer, 1, 1.0, 2.0, norm=4.0)  # two shares of one loss
    take(observer, 2, 5.0, norm=2.0)
    assert look(observer, 2) == []
    take(observer, 3, 8.0)
    look(observer, 3, lr=0.25)
    (first_step, first), (second_step, second) = observer.recorder.logged
    assert (first_step, second_step) == (2, 3)
    assert first["loss"] == pytest.approx((1.0 + 2.0 + 5.0) / 2)
    assert (first["grad_norm"], first["lr"]) == (3.0, 0.5)
    assert first["terms"] == {"language": pytest.approx((1.0 + 2.0 + 5.0) / 3)}
    assert (second["loss"], second["lr"]) == (8.0, 0.25)
    assert first["steps_per_second"] > 0
    assert observer.throughput.work()["steps"] == 0.0


def test_counts_that_are_nought_are_not_logged(make, take):
    observer = make()
    take(observer, 1, 1.0)
    look(observer, 1)
    take(observer, 2, 1.0)
    look(observer, 2, skipped={"caption empty": 3})
    plain, told = (values for _, values in observer.recorder.logged)
    assert "faults" not in plain
    assert "skipped" not in plain
    assert told["skipped"] == {"caption empty": 3}


def test_a_bad_update_is_told_counted_and_left_out_of_the_means(make, take):
    observer = make()
    take(observer, 1, 2.0)
    take(observer, 2, float("nan"), norm=float("nan"))
    (fault,) = look(observer, 2)
    assert (fault.outcome.step, fault.action) == (2, "skip")
    assert observer.recorder.faults == [(0, 2)]
    ((_, values),) = observer.recorder.logged
    assert (values["loss"], values["grad_norm"]) == (2.0, 1.0)
    assert values["faults"] == {"not_finite": 1}


def test_updates_that_were_all_bad_still_leave_a_line(make, take):
    observer = make()
    take(observer, 1, float("inf"))
    assert len(look(observer, 1)) == 1
    ((_, values),) = observer.recorder.logged
    assert "loss" not in values
    assert values["faults"] == {"not_finite": 1}


def test_what_stops_a_run_is_told_first(make, take):
    observer = make(faults=FaultPolicy(not_finite="stop"))
    take(observer, 1, float("nan"))
    with pytest.raises(TrainingError, match="step 1"):
        look(observer, 1)
    assert observer.recorder.faults == [(0, 1)]
    assert observer.recorder.logged == []


def test_another_rank_logs_nothing_and_tells_of_its_faults(make, take):
    observer = make(Other(rank=0, world_size=1), probes={"count": Counting(every=1)})
    take(observer, 1, float("nan"))
    look(observer, 1)
    observer.measure(1, place_of(observer), is_last=False)
    notes = observer.recorder
    assert (notes.logged, notes.measured, notes.faults) == ([], [], [(0, 1)])
    assert observer.probes["count"].times == 1


def test_the_threads_are_looked_after_at_every_look(make):
    looks = []
    observer = make(thread_watch=SimpleNamespace(look=lambda: looks.append(1)))
    look(observer, 1)
    look(observer, 2)
    assert len(looks) == 2


def place_of(observer):
    module = torch.nn.Dropout().train()
    return SimpleNamespace(module=module, mesh=observer.mesh)


def test_each_probe_measures_at_its_own_pace_and_all_at_the_end(make):
    probes = {"often": Counting(every=2), "seldom": Counting(every=5)}
    observer = make(probes=probes)
    placed = place_of(observer)
    for step in range(1, 8):
        observer.measure(step, placed, is_last=step == 7)
    found = [
        (step, name, values["times"])
        for step, measured in observer.recorder.measured
        for name, values in measured.values["validation"].items()
    ]
    often = [(2, "often", 1), (4, "often", 2), (6, "often", 3), (7, "often", 4)]
    assert found == sorted([*often, (5, "seldom", 1), (7, "seldom", 2)])


def test_a_turn_at_the_end_is_taken_once(make):
    observer = make(probes={"count": Counting(every=3)})
    observer.measure(3, place_of(observer), is_last=True)
    assert observer.probes["count"].times == 1


def test_training_goes_on_in_training_mode_and_pictures_are_handed_on(make):
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    observer = make(probes={"tasks": Counting(every=1, picture=picture)})
    placed = place_of(observer)
    observer.measure(1, placed, is_last=False)
    assert placed.module.training
    ((_, measured),) = observer.recorder.measured
    assert measured.pictures["grid"] is picture
    assert observer.probes["tasks"].phase == "validation, tasks"


def test_measuring_counts_as_evaluation_and_not_as_slow_training(make, monkeypatch):
    from mllm_npu.train import throughput

    clock = SimpleNamespace(now=100.0, time=lambda: 0.0, process_time=lambda: 0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(throughput, "time", clock)

    class Slow(Counting):
        def measure(self, placed):
            clock.now += 30.0
            return super().measure(placed)

    observer = make(probes={"slow": Slow(every=1)})
    observer.measure(1, place_of(observer), is_last=False)
    assert observer.throughput.work()["evaluation_seconds"] == 30.0
