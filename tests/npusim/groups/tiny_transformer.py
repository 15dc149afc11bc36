"""A small transformer with pictures, computed plainly or by the fused operators of the NPU.

Shape letters: B rows, S tokens of a row, D width, H heads, E head width.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

WORDS = 512
WIDTH = 128
HEADS = 4
LENGTH = 64


class PlainOps:
    """What any device computes."""

    @staticmethod
    def normalise(x, weight):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight).to(
            x.dtype
        )

    @staticmethod
    def rotate(x_BSHE, cos, sin):
        first, second = x_BSHE.float().chunk(2, -1)
        turned = torch.cat((-second, first), -1)
        return (x_BSHE.float() * cos + turned * sin).to(x_BSHE.dtype)

    @staticmethod
    def attend(q_BSHE, k_BSHE, v_BSHE):
        parts = (part.transpose(1, 2) for part in (q_BSHE, k_BSHE, v_BSHE))
        return F.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2)

    @staticmethod
    def gate(x):
        first, second = x.chunk(2, -1)
        return F.silu(first.float()).mul(second.float()).to(x.dtype)


class FusedOps:
    """The NPU's own; they do not follow autocast, so the dtypes are chosen here."""

    def __init__(self, npu_package, device):
        self.npu = npu_package
        self.mask = torch.ones(2048, 2048, dtype=torch.bool, device=device).triu_(1)

    def normalise(self, x, weight):
        return self.npu.npu_rms_norm(x, weight, 1e-6)[0]

    def rotate(self, x_BSHE, cos, sin):
        return self.npu.npu_rotary_mul(x_BSHE, cos.to(x_BSHE.dtype), sin.to(x_BSHE.dtype))

    def attend(self, q_BSHE, k_BSHE, v_BSHE):
        scale = q_BSHE.shape[-1] ** -0.5
        settings = {"scale": scale, "atten_mask": self.mask, "sparse_mode": 3}
        parts = (q_BSHE, k_BSHE, v_BSHE)
        return self.npu.npu_fusion_attention(*parts, q_BSHE.shape[2], "BSND", **settings)[0]

    def gate(self, x):
        return self.npu.npu_swiglu(x)


class Layer(nn.Module):
    def __init__(self, ops):
        super().__init__()
        self.ops = ops
        self.norms = nn.ParameterList(nn.Parameter(torch.ones(WIDTH)) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 8 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x, cos, sin):
        normed = self.ops.normalise(x, self.norms[0])
        q, k, v = self.qkv(normed).unflatten(-1, (3, HEADS, -1)).unbind(2)
        q, k = (self.ops.rotate(part, cos, sin) for part in (q, k))
        x = x + self.out(self.ops.attend(q, k, v).flatten(2))
        return x + self.down(self.ops.gate(self.up(self.ops.normalise(x, self.norms[1]))))


class TinyTransformer(nn.Module):
    """Sixteen places of each row come from pictures, the others from words."""

    def __init__(self, ops, num_layers=4):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.patches = nn.Conv3d(3, WIDTH, (2, 4, 4), stride=(2, 4, 4))
        self.patch_norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(Layer(ops) for _ in range(num_layers))
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids_BS, pictures, *, recompute):
        words = self.words(ids_BS)
        patches = self.patch_norm(self.patches(pictures).flatten(1)).to(words.dtype)
        first = patches[None].expand(len(words), -1, -1)
        x = torch.cat((first, words[:, len(patches) :]), 1)
        cos, sin = angles(ids_BS.shape[1], ids_BS.device)
        for layer in self.layers:
            if recompute:
                x = checkpoint(layer, x, cos, sin, use_reentrant=False)
            else:
                x = layer(x, cos, sin)
        return self.head(x)


def angles(length, device):
    """Cosine and sine [1, S, 1, E]."""
    width = WIDTH // HEADS
    speeds = 1e4 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    turns = torch.arange(length, device=device, dtype=torch.float32)[:, None] * speeds
    both = torch.cat((turns, turns), -1)[None, :, None]
    return both.cos(), both.sin()


class TinyTraining:
    """Steps on one batch; a step gives its loss as a tensor of the device."""

    def __init__(self, device, make_ops, *, dtype=torch.float32, recompute=True):
        torch.manual_seed(0)
        host = torch.Generator().manual_seed(1)
        self.device, self.dtype, self.recompute = torch.device(device), dtype, recompute
        self.model = TinyTransformer(make_ops(device)).to(device)
        self.ids = torch.randint(0, WORDS, (2, LENGTH), generator=host).to(device)
        self.pictures = torch.randn(16, 3, 2, 4, 4, generator=host).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01)

    def step(self):
        narrow = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=narrow):
            logits = self.model(self.ids, self.pictures, recompute=self.recompute)
        loss = F.cross_entropy(logits.float().flatten(0, 1), self.ids.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def losses(self, num_steps):
        return torch.stack([self.step() for _ in range(num_steps)]).tolist()
