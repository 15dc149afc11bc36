"""A small model whose modules can be made wrong one by one, and a real one on digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mllm_npu.compare.bounds import Bounds
from mllm_npu.compare.comparison import Comparison
from mllm_npu.compare.isolation import Isolation
from mllm_npu.compare.recording import Event, Facts, Recording
from mllm_npu.compare.tensor_store import TensorStore
from mllm_npu.compare.verdict import Verdict, judge
from mllm_npu.compare.watch import Watch
from mllm_npu.data.worlds.digits import make_digits


class Block(nn.Module):
    """What a transformer is made of, without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 16)
        self.act = nn.GELU()
        self.down = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        states = self.embed(x)
        for block in self.blocks:
            states = block(states)
        return self.head(states)


class Toy(nn.Module):
    """Stands for an objective; weights and data follow from the seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = Model()
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(5, 6, generator=generator)
        self.targets = torch.randn(5, 3, generator=generator)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.model(x) - self.targets).square().mean()}

    def part(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)


class _Gradient(torch.autograd.Function):
    """Passes on what it is given, and a wrong gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def change_forward(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Make a module give something else."""
    forward = module.forward
    module.forward = lambda *args, **kwargs: change(forward(*args, **kwargs))


def wrong_gradient(x: Tensor, factor: float = 1.1) -> Tensor:
    """The same values with another gradient."""
    return _Gradient.apply(x, factor)


def change_backward(module: nn.Module) -> None:
    """Make a module give back another gradient, and nothing else."""
    forward = module.forward
    module.forward = lambda x: forward(wrong_gradient(x))


def change_parameter(parameter: Tensor, factor: float = 1.1) -> None:
    """Make the gradient of one parameter another, and nothing else."""
    parameter.register_hook(lambda gradient: gradient * factor)


def observe(root: Toy, taker: Any, *, compute_dtype: str = "float32") -> None:
    """Forward and backward pass under a watch."""
    with Watch(root, taker) as watch:
        loss = root(root.inputs)["loss"]
        taker.take(Event(kind="loss", call=-1, module="loss", count=1, path="total"), loss)
        with watch.going_back():
            loss.backward()
    root.zero_grad()
    sums = {
        name: str(p.detach().double().sum().item()) for name, p in root.model.named_parameters()
    }
    taker.end(watch.calls, Facts(side="toy", weights=sums, compute_dtype=compute_dtype))


def observe_alone(root: Toy, recording: Recording, taker: Any) -> Isolation:
    """Every module alone."""
    with Isolation(root, recording, taker) as isolation, torch.no_grad():
        root(root.inputs)
    return isolation


def record(root: Toy, *, isolate: bool = False) -> Recording:
    """Side A."""
    recording = Recording(store=TensorStore(memory_gib=1))
    observe(root, recording)
    if isolate:
        observe_alone(root, recording, recording)
    return recording


def compare(
    a: Toy, b: Toy, *, isolate: bool = False, rtol: float | None = None
) -> tuple[Comparison, Verdict]:
    """Both sides, and what is said of them."""
    recording = record(a, isolate=isolate)
    comparison = Comparison(recording, bounds=Bounds(rtol=rtol), compute_dtype=torch.float32)
    observe(b, comparison)
    if isolate:
        observe_alone(b, recording, comparison)
    return comparison, judge(comparison)


class Tools:
    """What the tests of this folder share."""

    Toy = Toy
    change_forward = staticmethod(change_forward)
    change_backward = staticmethod(change_backward)
    wrong_gradient = staticmethod(wrong_gradient)
    change_parameter = staticmethod(change_parameter)
    observe = staticmethod(observe)
    observe_alone = staticmethod(observe_alone)
    record = staticmethod(record)
    compare = staticmethod(compare)


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A small world of digits, made once."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.02)
    return folder


@pytest.fixture(scope="session")
def overrides(digits, tmp_path_factory):
    """Of a run on little data, with random weights."""
    return [
        "experiment=digits/mllm",
        f"world_dir={digits}",
        f"output_dir={tmp_path_factory.mktemp('runs')}",
        "initialise_from=null",
        "threads=1",
        "tracker=[jsonl]",
        "dataset.tokens_per_pack=256",
    ]
