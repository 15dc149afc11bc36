"""The three objectives one after the other on a real tiny model, resumed in the middle."""

import json
import os
import signal
from itertools import count

import pytest
import torch

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.models.tiny import tiny_batch, tiny_language_model, tiny_seed
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objectives.decoder import DecoderObjective
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.objectives.vision import VisionObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Constant
from mllm_npu.train.trainer import Trainer

CPU = torch.device("cpu")
FROZEN_ENCODER = ["*", "!vision_encoder.*", "!image_decoder.*"]
READING = ["vision_encoder.*", "projector.*", "language_model.*"]


class TinyBatches:
    """Four batches again and again; one in four only reads, one only draws."""

    consumed = 0
    skipped = {}  # noqa: RUF012

    def __iter__(self):
        while True:
            self.consumed += 1
            kind = self.consumed % 4
            yield tiny_batch(reads=kind != 1, draws=kind != 2, seed=kind)

    def preview(self):
        return (tiny_batch(seed=number) for number in count())

    def state_dict(self):
        return {"consumed": self.consumed}

    def load_state_dict(self, state):
        self.consumed = state["consumed"]


def make_objective(stage, model):
    if stage == "contrast":
        return VisionObjective(
            model=model,
            trainable=["vision_encoder.*"],
            text="contrast",
            text_tower=tiny_language_model(),
            contrast_width=8,
        )
    if stage == "caption":
        return VisionObjective(model=model, trainable=READING, text="caption")
    cache = FeatureCache(max_gib=0.01)
    if stage == "mllm":
        return MultimodalObjective(model=model, trainable=FROZEN_ENCODER, feature_cache=cache)
    return DecoderObjective(model=model, feature_cache=cache)


def make_trainer(stage, folder, model, *, max_steps=24, **options):
    parallel = Parallel(kind="ddp")
    placed = parallel.shape(make_objective(stage, model), Mesh.single(), CPU)
    placed.settle()
    return Trainer(
        placed=placed,
        batches=TinyBatches(),
        optimizer=AdamW(lr=1e-2),
        schedule=Constant(),
        recorder=Recorder(folder=folder, progress=False),
        checkpoints=Checkpoints(folder=folder / "checkpoints"),
        max_steps=max_steps,
        ema_decay=0.9 if stage == "decoder" else None,
        log_every=1,
        **options,
    )


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("first", ["contrast", "caption"])
def test_every_stage_learns_and_hands_its_model_on(tmp_path, first):
    torch.manual_seed(0)
    model = tiny_seed()
    for stage in (first, "mllm", "decoder"):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trainer = make_trainer(stage, tmp_path / stage, model)
        assert trainer.run()
        assert trainer.export() is model
        found = losses(tmp_path / stage)
        assert sum(found[-8:]) < sum(found[:8]), stage
        changed = {
            name.split(".")[0]
            for name, tensor in model.state_dict().items()
            if not torch.equal(tensor, before[name])
        }
        expected = {
            "contrast": {"vision_encoder"},
            "caption": {"vision_encoder", "projector", "language_model"},
            "decoder": {"image_decoder"},
            "mllm": {
                "language_model",
                "projector",
                "output_projector",
                "patch_pos_embed",
                "drawn_features",
            },
        }
        assert changed == expected[stage]


def stop_once(advance, stop_at):
    """The second signal would end the process at once."""
    sent = []

    def stop(step):
        advance(step)
        if step == stop_at and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGINT)

    return stop


@pytest.mark.parametrize("stage", ["contrast", "mllm", "decoder"])
def test_a_real_model_resumes_bit_for_bit(tmp_path, stage):
    def run(folder, *, stop_at=None, resume="never"):
        torch.manual_seed(0)
        trainer = make_trainer(stage, tmp_path / folder, tiny_seed(), max_steps=8)
        trainer.recorder.advance = stop_once(trainer.recorder.advance, stop_at)
        return trainer.run(resume=resume)

    assert run("whole")
    assert not run("parts", stop_at=3)
    torch.manual_seed(77)
    assert run("parts", resume="auto")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
