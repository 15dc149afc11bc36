"""Options of ``serve`` that are for Ray Serve."""

import inspect

import pytest

from mllm_npu.commands import ray_options, serving
from mllm_npu.errors import ConfigError

ABSENT = dict.fromkeys(ray_options.OPTIONS) | {"stop": False, "print_config": False}


def test_ray_is_asked_for_by_name():
    assert ray_options.is_asked({**ABSENT, "ray": True, "max_replicas": 3})
    assert not ray_options.is_asked({**ABSENT, "ray": False})


@pytest.mark.parametrize("name", ["ray_address", "max_replicas", "stop", "print_config"])
def test_an_option_of_ray_without_it_is_refused(name):
    option = name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{option} is an option of Ray Serve. Give --ray"):
        ray_options.is_asked({**ABSENT, "ray": False, name: 1})


def test_the_least_number_counts_as_given():
    with pytest.raises(ConfigError, match="--min-replicas"):
        ray_options.is_asked({**ABSENT, "ray": False, "min_replicas": 0})


def test_the_command_has_them_all():
    parameters = inspect.signature(serving.serve).parameters
    assert set(ray_options.OPTIONS) < set(parameters)
    assert all(not parameters[name].default for name in ray_options.OPTIONS)
