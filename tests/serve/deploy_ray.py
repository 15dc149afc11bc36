"""What ``serve deploy`` does with a configuration file, without Ray's dashboard.

python tests/serve/deploy_ray.py ADDRESS FILE
"""

import sys
import time
from pathlib import Path

import yaml

from mllm_npu.commands import serving_ray

if __name__ == "__main__":
    address, file = sys.argv[1:]
    serving_ray.set_environment(address)
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    values = yaml.safe_load(Path(file).read_text())
    _get_global_client().deploy_apps(ServeDeploySchema.model_validate(values))
    while serve.status().applications["mllm-npu"].status.value != "RUNNING":
        assert "FAILED" not in serve.status().applications["mllm-npu"].status.value, serve.status()
        time.sleep(0.2)
    ray.shutdown()
