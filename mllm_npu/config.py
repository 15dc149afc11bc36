"""Compose a typed configuration from the YAML groups; refuse the unknown and the missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mllm_npu.arguments import TARGET, argument_names, check_arguments, check_types
from mllm_npu.errors import ConfigError, MllmNpuError
from mllm_npu.original_model import translate_original
from mllm_npu.original_names import explain_original
from mllm_npu.part_numbers import language_number, vision_number
from mllm_npu.roots import ROOTS, TrainRoot

Config = DictConfig
"""A composed configuration; other files import this name, so that only this one knows OmegaConf."""

CONFIG_FOLDER = Path(__file__).parent / "configs"
_HYDRA_KEYS = {TARGET, "_partial_", "_convert_", "_recursive_"}
_ROOMS_OF_A_MODEL = ("mllm_npu.models.", "mllm_npu.processing.", "mllm_npu.inference.")
"""What a model folder may name; the rest of the package writes files and starts runs."""


def load_config(root: str = "training", overrides: Sequence[str] = ()) -> DictConfig:
    """Compose ``configs/<root>.yaml`` with Hydra overrides and check every key.

    Args:
        root: name of a root file and of its type in ROOTS.
        overrides: Hydra syntax, e.g. ``experiment=digits/mllm models/language_model=qwen3_tiny``.

    Raises:
        ConfigError: an unknown group, option, key or target; a value that is missing.
    """
    _register_resolvers()
    try:
        with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
            config = compose(root, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # Hydra raises a bare ValueError for a group that is set to null or to a number.
        raise ConfigError(_explain_compose(error, root)) from error
    said = explain_original(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    if said is not None:
        raise ConfigError(f"{said} Translate the file: mllm-npu config --from-original FILE")
    check_config(config, ROOTS[root])
    return config


def offer_option(group: str, name: str, values: Mapping[str, Any]) -> None:
    """Make an option of a configuration group known that stands in no file, for this process.

    Args:
        group: such as "models".
        name: what ``<group>=<name>`` chooses then.
        values: plain keys and values, as a file of the group would hold them.
    """
    ConfigStore.instance().store(group=group, name=name, node=dict(values))


def read_config(path: Path, root: str) -> DictConfig:
    """Read a resolved YAML written by ``write_config``; its targets must be parts of a model.

    A model folder may come from anywhere, so a ``_target_`` outside these rooms is refused, and so
    is a reference: they would run code, or read this machine's environment, as the data says.

    Raises:
        ConfigError: the file is missing, is not YAML, has unknown keys or foreign targets.
    """
    _register_resolvers()
    config = _read_yaml(path)
    for where, value in _walk(config, ""):
        if where.endswith(TARGET) and not str(value).startswith(_ROOMS_OF_A_MODEL):
            raise ConfigError(
                f"{path}: {where} is {value!r}; a model folder may only name parts of "
                "mllm_npu models. Load code of your own from Python, not from a folder."
            )
        if isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"{path}: {where} is the reference {value!r}; a model folder holds values only. "
                "Take the model.yaml that mllm-npu train has written."
            )
    check_config(config, ROOTS[root])
    return config


def read_stage(path: Path) -> DictConfig:
    """The resolved configuration that training has written into a stage's folder.

    It may name parts of any room, because whoever trains wrote it; do not read one from elsewhere.

    Raises:
        ConfigError: the file is missing, is not YAML, or has unknown keys.
    """
    config = _read_yaml(path)
    check_config(config, TrainRoot)
    return config


def read_original(path: Path) -> DictConfig:
    """A model file written for the original, as values of ours.

    Raises:
        ConfigError: no such file, no YAML, or something in it that cannot be translated.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:
        # The YAML reader has its own tree of errors; whichever it is, the file cannot be used.
        raise ConfigError(f"{path} is not a YAML file that can be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected keys and values.")
    return OmegaConf.create(translate_original({str(key): v for key, v in values.items()}))


def write_config(config: DictConfig, path: Path) -> None:
    """Write a configuration with every reference resolved, under a temporary name first.

    Raises:
        ConfigError: the folder cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(to_yaml(config), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error}. Choose a folder that can be written, on a disk "
            "with room."
        ) from error


def to_yaml(config: DictConfig) -> str:
    """The configuration as YAML with every reference resolved."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))


def parse_yaml(text: str) -> Any:
    """Plain values of what ``to_yaml`` gave, or of any YAML without references."""
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def plain(config: Any) -> Any:
    """Plain dicts, lists and numbers of a configuration node, every reference resolved.

    Raises:
        ConfigError: a reference leads nowhere.
    """
    if not OmegaConf.is_config(config):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain_reference(error)) from error


def select(config: DictConfig, keys: Sequence[str]) -> DictConfig:
    """A new configuration of some top-level keys, resolved."""
    resolved = plain(config)
    return OmegaConf.create({key: resolved.get(key) for key in keys})


def check_config(config: DictConfig, root: type) -> None:
    """Refuse unknown keys (``+key`` included), missing values and values of another type.

    Raises:
        ConfigError: with the path, and the nearest known key or what is needed there.
    """
    known = [entry.name for entry in fields(root)]
    needed = [e.name for e in fields(root) if e.default is MISSING and e.default_factory is MISSING]
    _refuse_unknown("", list(config.keys()), known, root.__name__)
    missing = [name for name in needed if name not in config] + _missing(config, "")
    if missing:
        raise ConfigError(f"{', '.join(missing)} has no value. Set it: {missing[0]}=...")
    values = plain(config)
    check_types(values, root, "")
    check_arguments(values, "")


def _read_yaml(path: Path) -> DictConfig:
    if not path.is_file():
        raise ConfigError(
            f"{path} was asked for and is not there. Give a folder made by mllm-npu train."
        )
    try:
        config = OmegaConf.load(path)
    except Exception as error:
        # The YAML reader has its own tree of errors; whichever it is, the file cannot be used.
        raise ConfigError(f"{path} is not a YAML file that can be read: {error}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} holds {type(config).__name__}, expected keys and values.")
    return config


def _missing(node: Any, path: str) -> list[str]:
    """Refuse unknown keys below a node; gives the paths of the values that are missing."""
    if isinstance(node, DictConfig) and TARGET in node:
        target = str(node[TARGET])
        given = [str(key) for key in node if str(key) not in _HYDRA_KEYS]
        _refuse_unknown(path, given, argument_names(target, path), target)
    missing: list[str] = []
    for key, where in _children(node, path):
        missing += (
            [where] if OmegaConf.is_missing(node, key) else _missing(node._get_node(key), where)
        )
    return missing


def _children(node: Any, path: str) -> list[tuple[Any, str]]:
    """Keys of a node with their paths; none where the node is a value."""
    if isinstance(node, DictConfig):
        return [(key, f"{path}.{key!s}" if path else str(key)) for key in node]
    if isinstance(node, ListConfig):
        return [(index, f"{path}[{index}]") for index in range(len(node))]
    return []


def _refuse_unknown(path: str, given: Sequence[Any], known: Sequence[str], owner: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            where = f"{path}.{key}" if path else str(key)
            raise ConfigError(
                f"{where} is not a setting of {owner}.{hint} It has: {', '.join(known)}."
            )


def _walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value below a node that is no node itself, with its path; references as written."""
    for key, where in _children(node, path):
        child = node._get_node(key)
        if isinstance(child, DictConfig | ListConfig) and not OmegaConf.is_interpolation(node, key):
            yield from _walk(child, where)
        else:
            yield where, child._value()


def _explain_compose(error: Exception, root: str) -> str:
    """One line of what Hydra says, and what to do; an unknown option lists the ones there are."""
    text = " ".join(str(error).split("Config search path:")[0].split())
    cause = getattr(error, "__cause__", None)
    if cause is not None and str(cause) not in text:
        text = f"{text} ({_first_line(cause)})"
    advice = "See what there is: mllm-npu config"
    if root == "evaluation":
        tasks = sorted(path.stem for path in (CONFIG_FOLDER / "task").glob("*.yaml"))
        advice = f"Tasks are {', '.join(tasks)}; see configs/task for their keys."
    return f"the configuration cannot be composed: {text} {advice}"


def _explain_reference(error: OmegaConfBaseException) -> str:
    """Our own error inside OmegaConf's, or where its reference leads nowhere."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MllmNpuError):
        cause = cause.__cause__
    where = f"{error.full_key}: " if error.full_key else ""
    if cause is not None:
        return f"{where}{cause}"
    return f"{where}{_first_line(error)}. The part it refers to is missing; see: mllm-npu config"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _register_resolvers() -> None:
    """Make ``${vision:FIELD,${..vision_encoder}}`` and ``${language:FIELD,...}`` known."""
    for name, resolver in (("vision", vision_number), ("language", language_number)):
        OmegaConf.register_new_resolver(
            name,
            lambda field_name, part, resolver=resolver: resolver(field_name, plain(part)),
            replace=True,
        )
