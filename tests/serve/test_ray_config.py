"""The configuration file that ``serve deploy`` takes."""

import importlib

import pytest
import yaml

from mllm_npu.serve.ray_config import IMPORT_PATH, config_values, render_config
from mllm_npu.serve.ray_options import RayPlan

PLAN = RayPlan(models={"digits": "/runs/digits", "scenes": "/runs/scenes"}, max_replicas=4)


def test_the_file_holds_the_plan():
    values = yaml.safe_load(render_config(PLAN, host="0.0.0.0", port=8000))
    assert values == config_values(PLAN, host="0.0.0.0", port=8000)
    assert RayPlan.from_plain(values["applications"][0]["args"]) == PLAN


def test_ray_understands_it():
    schema = pytest.importorskip("ray.serve.schema").ServeDeploySchema
    read = schema.model_validate(config_values(PLAN, host="0.0.0.0", port=8000))
    assert (read.http_options.host, read.http_options.port) == ("0.0.0.0", 8000)
    assert read.applications[0].import_path == IMPORT_PATH


def test_the_builder_is_where_the_file_says():
    pytest.importorskip("ray.serve")
    module, _, name = IMPORT_PATH.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
