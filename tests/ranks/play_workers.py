"""A data set that workers read, and a trainer that reads it until it is stopped.

python tests/ranks/play_workers.py
"""

import json
import os
import signal
import sys
import threading
import time

from torch.utils.data import Dataset

from mllm_npu.data.worker_process import prepare_workers, read_in_workers

LOCK = threading.Lock()
STEP_SECONDS = 1.5
"""What is left of a step when a stop signal comes."""


class Seen(Dataset):
    """Tells the key, and which process has read it as the child of which."""

    def __getitem__(self, key):
        with LOCK:
            return key, os.getpid(), os.getppid(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def main():
    """Read a few, say who has; go on when a stop signal comes, or sleep until killed."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    prepare_workers()
    items = read_in_workers(Seen(), iter(range(100)), num_workers=2)
    first = [next(items) for _ in range(10)]
    pids = {item[1] for item in first} | {item[2] for item in first}
    sys.stdout.write(json.dumps(sorted(pids)) + "\n")
    sys.stdout.flush()
    stopped.wait(60)
    time.sleep(STEP_SECONDS)
    sys.stdout.write(json.dumps([item[0] for item in items]) + "\n")


if __name__ == "__main__":
    main()
