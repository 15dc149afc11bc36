"""How a service on Ray is laid out: models, replicas, what each needs, when there are more."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm_npu.errors import ConfigError
from mllm_npu.serve.worker import parse

if TYPE_CHECKING:
    from mllm_npu.device.platform import Platform

FRONT = "front"
"""Name of the deployment that clients reach."""
NAME_MARK = "="
SURGE_PERCENT = 100
DEVICES_PER_REPLICA = 1
HEALTH_SECONDS = 2.0
"""Ray looks so often; a replica that is unwell three times in a row is replaced."""
LEAST_LOOK_BACK_SECONDS, LONGEST_LOOK_BACK_SECONDS = 10.5, 30.0
"""The load is averaged over so long; Ray hears of it every 10 s."""
FRONT_REQUESTS = 64
"""Replies that one front passes back before another one is started."""
MANY_REQUESTS = 10_000
_CPU_RESOURCE, _GPU_RESOURCE = "CPU", "GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPlan:
    """A service of one or several models, in plain values.

    Args:
        models: folder of each model, by the name that clients use.
        device: kind of device of the replicas; auto takes the best the cluster has.
        min_replicas: of each model; 0 lets it go away while nobody asks.
        max_replicas: of each model.
        replica_cpus: cores that a replica keeps for itself.
        target_requests: requests under way per replica from which on there are more replicas; None
            takes the number of slots of an engine, so that one is added when requests wait.
        upscale_seconds: load must stay so long before replicas are added.
        downscale_seconds: load must be low so long before replicas are taken away.
        surge_percent: replicas that an update may start before it stops as many old ones. 0 stops
            an old one first, which needs no spare device, and lets requests wait meanwhile.
        drain_seconds: for replies to end in when a replica goes.
        api_keys: file with the keys of clients on the machines of the front; None: only those of
            the environment there.
        needs_keys: refuse to start without a key.
        worker: further options, as on the command line of a worker.

    Raises:
        ConfigError: a value cannot be.
    """

    models: Mapping[str, str]
    device: str = "auto"
    min_replicas: int = 1
    max_replicas: int = 1
    replica_cpus: float = 1.0
    target_requests: float | None = None
    upscale_seconds: float = 30.0
    downscale_seconds: float = 600.0
    surge_percent: int = SURGE_PERCENT
    drain_seconds: float = 30.0
    api_keys: str | None = None
    needs_keys: bool = False
    worker: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("No model was asked for. Give the folder of at least one.")
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ConfigError(
                f"{self.min_replicas} to {self.max_replicas} replicas were asked for. Give "
                "--max-replicas from 1 on, and --min-replicas that is not above it."
            )
        for name in self.models:
            if not name or "#" in name or name == FRONT:
                raise ConfigError(
                    f"A model was to be called {name!r}, which Ray Serve cannot take. Call it "
                    f"something else: NAME{NAME_MARK}FOLDER"
                )
        self.read_worker()

    def to_plain(self) -> dict[str, Any]:
        """Its values as a configuration file of Ray Serve holds them."""
        return {**asdict(self), "models": dict(self.models), "worker": list(self.worker)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> RayPlan:
        """Read the values of a configuration file.

        Raises:
            ConfigError: one has a name that there is not, or cannot be.
        """
        known = [each.name for each in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown or not isinstance(values.get("models"), Mapping):
            raise ConfigError(
                f"The arguments of the service name {', '.join(unknown) or 'no models'}. They are "
                f"{', '.join(known)}, and models is a table of names and folders."
            )
        return cls(**{**values, "worker": tuple(values.get("worker", ()))})

    def words(self, name: str, device: str) -> list[str]:
        """The command line of a worker with one of the models."""
        given = {"model": self.models[name], "name": name, "device": device}
        return [*self.worker, *(f"--{option}={value}" for option, value in given.items())]

    def read_worker(self) -> Namespace:
        """The options of a worker, as far as they do not follow from a model.

        Raises:
            ConfigError: a worker has no such option.
        """
        try:
            return parse(list(self.worker))
        except SystemExit as error:
            raise ConfigError(
                f"worker={' '.join(self.worker)} was asked for, which a worker does not take. See: "
                "python -m mllm_npu.serve.worker --help"
            ) from error

    def model_options(self, platform: Platform) -> dict[str, Any]:
        """Options of the deployment of a model whose replicas compute on a platform."""
        worker = self.read_worker()
        target = self.target_requests or float(worker.slots)
        return {
            "ray_actor_options": actor_options(platform, num_cpus=self.replica_cpus),
            "autoscaling_config": {
                "min_replicas": self.min_replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": target,
                "upscale_delay_s": self.upscale_seconds,
                "downscale_delay_s": self.downscale_seconds,
                "look_back_period_s": look_back(self.upscale_seconds),
            },
            # As many again as are answered wait in the engine; the others wait in front, for the
            # replica that has room first, one that is about to start included.
            "max_ongoing_requests": 2 * worker.slots,
            "max_queued_requests": worker.max_queue,
            "max_surge_percent": self.surge_percent,
            "graceful_shutdown_timeout_s": self.drain_seconds,
            "graceful_shutdown_wait_loop_s": min(2.0, self.drain_seconds),
            "health_check_period_s": HEALTH_SECONDS,
            # A model that cannot be loaded is told at once, and an update goes no further.
            "max_constructor_retry_count": 1,
        }

    def front_options(self) -> dict[str, Any]:
        """Options of the deployment that clients reach; it computes nothing."""
        return {
            "name": FRONT,
            "ray_actor_options": {"num_cpus": 0},
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": max(1, self.max_replicas * len(self.models)),
                "target_ongoing_requests": float(FRONT_REQUESTS),
            },
            "max_ongoing_requests": MANY_REQUESTS,
            "max_surge_percent": SURGE_PERCENT,
            "graceful_shutdown_timeout_s": self.drain_seconds,
            "graceful_shutdown_wait_loop_s": min(2.0, self.drain_seconds),
            "max_constructor_retry_count": 1,
        }


def look_back(seconds: float) -> float:
    """Over how long the load is averaged, where it must stay for some time to count."""
    return min(LONGEST_LOOK_BACK_SECONDS, max(LEAST_LOOK_BACK_SECONDS, seconds))


def actor_options(platform: Platform, *, num_cpus: float) -> dict[str, Any]:
    """What a replica takes of a machine, in Ray's words."""
    options: dict[str, Any] = {"num_cpus": num_cpus}
    if platform.ray_resource == _GPU_RESOURCE:
        options["num_gpus"] = DEVICES_PER_REPLICA
    elif platform.ray_resource != _CPU_RESOURCE:
        options["resources"] = {platform.ray_resource: DEVICES_PER_REPLICA}
    return options


def demand(platform: Platform, *, num_cpus: float) -> dict[str, float]:
    """The same as a table of resources."""
    needed = {_CPU_RESOURCE: num_cpus}
    if platform.ray_resource != _CPU_RESOURCE:
        needed[platform.ray_resource] = float(DEVICES_PER_REPLICA)
    return needed


def split_name(asked: str) -> tuple[str | None, Path]:
    """Name and folder of ``NAME=FOLDER``; a folder alone has no name here."""
    name, mark, folder = asked.partition(NAME_MARK)
    if mark and name and "/" not in name and not Path(asked).is_dir():
        return name, Path(folder)
    return None, Path(asked)
