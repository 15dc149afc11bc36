"""The command ``serve`` with workers that play; run as a process of its own, arguments as typed."""

import sys
from pathlib import Path

from mllm_npu.cli import main
from mllm_npu.commands import serving

if __name__ == "__main__":
    player = Path(__file__).parents[1] / "serve" / "play_worker.py"
    serving.WORKER = (sys.executable, str(player))
    sys.exit(main(["serve", *sys.argv[1:]]))
