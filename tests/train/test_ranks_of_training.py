"""Two processes train to what one process with two micro-batches trains to."""

import runpy
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
from pathlib import Path
import torch
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.models.tiny import tiny_batch, tiny_seed
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Constant
from mllm_npu.train.trainer import Trainer

mesh = Mesh.from_environment(torch.device("cpu"), timeout_seconds=60)

class Batches:
    consumed = 0
    skipped = {}
    def __iter__(self):
        while True:
            number = self.consumed + mesh.rank
            self.consumed += mesh.world_size
            # What one rank reads and the other only draws must not matter.
            yield tiny_batch(reads=number % 2 == 0, draws=number % 2 == 1, seed=number)
    def state_dict(self):
        return {"consumed": self.consumed}
    def load_state_dict(self, state):
        self.consumed = state["consumed"]

torch.manual_seed(mesh.rank)
folder = Path(sys.argv[1])
trainer = Trainer(
    objective=MultimodalObjective(
        model=tiny_seed(normalize=False), trainable=["*", "!image_decoder.*"]
    ),
    batches=Batches(), optimizer=AdamW(lr=1e-3, eps=1e-3), schedule=Constant(),
    recorder=Recorder(folder=folder, tensorboard=False, progress=False),
    checkpoints=Checkpoints(folder=folder), mesh=mesh, device=torch.device("cpu"),
    max_steps=3, accumulate=2 // mesh.world_size, clip_grad_norm=0.5,
)
trainer.run()
mesh.close()
"""


@pytest.mark.slow
def test_the_number_of_ranks_does_not_change_the_result(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, str(script), str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one")])
    monkeypatch.delenv("RANK", raising=False)
    runpy.run_path(str(script))
    one, two = (
        load_file(tmp_path / name / "step-00000003" / "objective.safetensors")
        for name in ("one", "two")
    )
    assert set(one) == set(two)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
