"""The command ``serve --ray`` with replicas that play; run as a process of its own.

python tests/serve/play_ray.py a=FOLDER b=FOLDER --json --no-page --port 0
"""

import os
import sys
from pathlib import Path

from mllm_npu import cli
from mllm_npu.commands import serving_ray

if __name__ == "__main__":
    joined = sys.argv[1:][sys.argv.index("--ray-address")] if "--ray-address" in sys.argv else None
    serving_ray.set_environment(joined)
    folder = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = folder  # of the replicas
    sys.path.insert(0, folder)
    from ray_playing import PlayReplica

    from mllm_npu.serve import ray_app

    ray_app.ModelReplica = PlayReplica
    sys.exit(cli.main(["serve", "--ray", *sys.argv[1:]]))
