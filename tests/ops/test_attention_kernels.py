import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.ops import attention_kernels as module
from mllm_npu.ops.attention_kernels import attention_kernels


class Watch(TorchDispatchMode):
    """Remembers the operators that ran."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


def test_the_kernel_a_cpu_attends_by_is_among_them():
    q = torch.randn(1, 2, 8, 16, requires_grad=True)
    with Watch() as watch:
        F.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert watch.seen & attention_kernels()


def test_kernels_of_packages_count_once_they_are_there(monkeypatch):
    monkeypatch.setattr(module, "_NAMES", ("fused_for_test::attend", "aten::mm"))
    assert attention_kernels() == {torch.ops.aten.mm.default}
    library = torch.library.Library("fused_for_test", "DEF")
    library.define("attend(Tensor query) -> Tensor")
    assert {str(kernel) for kernel in attention_kernels()} == {
        "fused_for_test.attend.default",
        "aten.mm.default",
    }
    library._destroy()
