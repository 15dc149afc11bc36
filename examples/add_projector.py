"""Train with a projector of your own, written in this file and named in a configuration.

    mllm-npu data digits --out data/digits
    python examples/add_projector.py

To keep it, move class and YAML into the package: docs/en/adding_parts.md.
"""

import argparse

from torch import Tensor, nn

from mllm_npu.build import build_trainer
from mllm_npu.config import load_config
from mllm_npu.models.interfaces import Projector

OVERRIDES = [
    "~models/projector",
    "+models.projector._target_=add_projector.GatedProjector",
    "+models.projector.input_dim='${vision:width,${..vision_encoder}}'",
    "+models.projector.output_dim='${language:width,${..language_model}}'",
    "+models.projector.num_queries='${vision:num_tokens,${..vision_encoder}}'",
]


class GatedProjector(Projector):
    """Two linear layers; one opens and shuts the other."""

    def __init__(self, *, input_dim: int, output_dim: int, num_queries: int) -> None:
        super().__init__()
        self.input_dim, self.output_dim, self.num_queries = input_dim, output_dim, num_queries
        self.value = nn.Linear(input_dim, output_dim)
        self.gate = nn.Linear(input_dim, output_dim)

    def forward(self, features_IKV: Tensor) -> Tensor:
        """Project float [I, K, V] -> float [I, K, D]."""
        return self.value(features_IKV) * self.gate(features_IKV).sigmoid()


def main() -> None:
    """Compose a reading model with the projector, and train it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="updates")
    parser.add_argument("overrides", nargs="*", help="settings, such as world_dir=my/digits")
    asked = parser.parse_intermixed_args()
    run = [
        *("models=mllm_tiny", "dataset=digits_read", "objective=comprehension"),
        *("processor=digits", "stage=gated", f"train.max_steps={asked.steps}"),
    ]
    trainer = build_trainer(load_config("training", [*run, *OVERRIDES, *asked.overrides]))
    trainer.run()
    print(type(trainer.objective.model.projector).__name__, trainer.step, "updates")


if __name__ == "__main__":
    main()
