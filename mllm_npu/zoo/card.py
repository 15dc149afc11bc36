"""Cards of the zoo: what a model is, where it comes from, and what was measured of it here."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from mllm_npu.arguments import describe, fits
from mllm_npu.config import parse_yaml
from mllm_npu.errors import ConfigError

CARD_FOLDER = Path(__file__).parent / "cards"
Family = Literal["seedx", "mllm", "llava", "llava_next", "llava_onevision", "digits"]

_SMALL = (".json", "tokenizer.model")
"""Files whose size is nothing beside that of weights."""
_HASH = re.compile(r"[0-9a-f]{64}")
_Node = TypeVar("_Node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model comes from.

    Args:
        hub: id on the Hugging Face Hub; null where it is on none.
        paper: arXiv number.
        repository: address of the code it was made with.
    """

    hub: str | None = None
    paper: str | None = None
    repository: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """Under what a model may be used.

    Args:
        weights: as its publisher says.
        language_model: of the language model it was made of; null where there is none.
        data: of what it was trained on, where that asks for something.
    """

    weights: str
    language_model: str | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFile:
    """One file of a released model.

    Args:
        path: inside its folder.
        size: bytes; null where they are not known to the byte.
        gigabytes: rounded, 10^9 bytes, as a page of the Hub shows it; null where not known.
        sha256: of its content; null where it is not known.
    """

    path: str
    size: int | None = None
    gigabytes: float | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is not None and not _HASH.fullmatch(self.sha256):
            raise ConfigError(f"{self.path}: sha256={self.sha256!r} is no SHA-256 in hex.")
        if Path(self.path).is_absolute() or ".." in Path(self.path).parts:
            raise ConfigError(f"{self.path} leaves the model's folder. Give a path inside it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardConfig:
    """What builds the model here.

    Args:
        root: configuration it is composed of: "training" or "model".
        overrides: as typed behind ``mllm-npu config``.
        experiments: configurations that train it.
    """

    root: Literal["training", "model"] = "model"
    overrides: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One figure of a model.

    Args:
        what: in words, with its unit.
        value: null where nothing was measured yet.
        by: the test or command that prints it.
    """

    what: str
    value: float | str | None
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """What to type, in this order.

    Args:
        get: gets the files; nothing where they come with the package.
        load: makes a model folder of them.
        ask: talks to it.
        train: trains it further.
    """

    get: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    train: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All that is known of a model.

    Args:
        name: of its file, and on the command line.
        title: for people.
        family: which layout its files have.
        summary: what it does, in a sentence or two.
        source: where it comes from.
        licence: under what it may be used.
        parameters: of the model as it is built here; null where it is not built yet.
        config: what builds it; null where there is none yet.
        commands: what to type.
        parity: how close to the original, as measured.
        quality: of what it answers and draws, as measured.
        memory: of the model, measured or planned.
        speed: of the model, measured.
        docs: pages of this project about it.
        notes: what else to know.
        files: of the release.
    """

    name: str
    title: str
    family: Family
    summary: str
    source: Source
    licence: Licence
    parameters: int | None
    config: CardConfig | None
    commands: Commands
    parity: tuple[Measured, ...] = ()
    quality: tuple[Measured, ...] = ()
    memory: tuple[Measured, ...] = ()
    speed: tuple[Measured, ...] = ()
    docs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[CardFile, ...] = ()

    @property
    def gigabytes(self) -> float | None:
        """Of all files together, 10^9 bytes; None where one that may be large is not known."""
        total = 0.0
        for file in self.files:
            size = file.gigabytes if file.size is None else file.size / 1e9
            if size is None and not file.path.endswith(_SMALL):
                return None
            total += size or 0.0
        return total or None


def card_names(folder: Path = CARD_FOLDER) -> list[str]:
    """Names of all cards, in order."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_card(name: str, folder: Path = CARD_FOLDER) -> Card:
    """The card of a name.

    Raises:
        ConfigError: there is none of that name, or it cannot be read.
    """
    known = card_names(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{name!r} is no card of the zoo.{hint} There are: {', '.join(known)}.")
    return read_card(folder / f"{name}.yaml")


def read_card(path: Path) -> Card:
    """Read one card; every key must be known and of its type.

    Raises:
        ConfigError: with the file and the path of the key.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except Exception as error:
        # The YAML reader has its own tree of errors; whichever it is, the file cannot be used.
        raise ConfigError(f"{path} is not a YAML file that can be read: {error}") from error
    card = _read(Card, values, path.name)
    if card.name != path.stem:
        raise ConfigError(f"{path.name}: name is {card.name!r}; a card is called as its file.")
    return card


def _read(kind: type[_Node], values: Any, where: str) -> _Node:
    """One node of a card, checked key by key."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} holds {values!r}, expected keys and values.")
    types = typing.get_type_hints(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in entries:
            near = difflib.get_close_matches(str(key), list(entries), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{where}: {key} is no key of a {kind.__name__}.{hint} "
                f"It has: {', '.join(entries)}."
            )
    for name, entry in entries.items():
        if entry.default is dataclasses.MISSING and name not in values:
            raise ConfigError(f"{where}: {name} is missing. Write null where it is not known.")
    try:
        return kind(**{key: _value(types[key], given, key, where) for key, given in values.items()})
    except ConfigError as error:
        said = str(error)
        raise ConfigError(said if said.startswith(where) else f"{where}: {said}") from error


def _value(expected: Any, given: Any, key: str, where: str) -> Any:
    """One value, as its annotation says."""
    inner, is_list = _inner_node(expected), get_origin(expected) is tuple
    if inner is None and fits(given, expected):
        return tuple(given) if isinstance(given, list) else given
    if inner is not None and is_list and isinstance(given, list):
        return tuple(_read(inner, each, f"{where}: {key}[{n}]") for n, each in enumerate(given))
    if inner is not None and isinstance(given, Mapping) and not is_list:
        return _read(inner, given, f"{where}: {key}")
    if given is None and type(None) in get_args(expected):
        return None
    wanted = describe(expected) if inner is None else f"the keys of a {inner.__name__}"
    raise ConfigError(f"{where}: {key} is {given!r}. Give {wanted}.")


def _inner_node(expected: Any) -> Any:
    """The dataclass of an annotation: of ``Node``, ``Node | None`` or ``tuple[Node, ...]``."""
    members = get_args(expected) if get_origin(expected) is not None else (expected,)
    return next((each for each in members if dataclasses.is_dataclass(each)), None)
