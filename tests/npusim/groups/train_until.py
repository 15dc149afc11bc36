"""Train as the command line does, and stop behind an update: train_until.py STEP SETTING..."""

import os
import signal
import sys

from mllm_npu.cli import main
from mllm_npu.train.trainer import Trainer

after_step = Trainer._after_step
last = int(sys.argv[1])


def stop_behind(trainer):
    after_step(trainer)
    if trainer.step == last:
        os.kill(os.getpid(), signal.SIGTERM)


Trainer._after_step = stop_behind
sys.exit(main(["train", *sys.argv[2:]]))
