"""Write the model card of one of our models: front matter of the Hub, and a page for people."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined
from PIL import Image
from safetensors import safe_open

from mllm_npu.config import plain, read_config
from mllm_npu.errors import WeightsError
from mllm_npu.model_folder import MODEL_FILE
from mllm_npu.zoo.card_table import short_number
from mllm_npu.zoo.model_card_facts import CardFigure, Example, RunFacts, read_examples

CARD_FILE = "README.md"
LIBRARY = "mllm-npu"
_PICTURES = Path("pictures")
_NUM_DRAWN, _COLUMNS, _NUM_EXAMPLES = 20, 10, 4
_TIME = ("train_seconds", "train_cpu_seconds", "peak_rss_gib")
"""Figures of the machine, which are no metrics of the model."""
_PROMPTS = {True: "Draw a seven.", False: "What is in the picture?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a run cannot know of its model.

    Args:
        licence: of the weights, as the Hub names it.
        base_models: Hub ids of what it was made of.
        title: of the card; None takes the run's name.
        tags: further ones.
        limits: what it is not for, in sentences.
    """

    licence: str | None = None
    base_models: tuple[str, ...] = ()
    title: str | None = None
    tags: tuple[str, ...] = ()
    limits: tuple[str, ...] = field(
        default=(
            "It knows what its training data shows and nothing else; look at the figures, and "
            "measure it on your own data before you rely on it.",
            "Nothing filters what it writes or draws.",
        )
    )


def write_model_card(folder: Path, run: RunFacts, facts: CardFacts) -> Path:
    """Write README.md and its pictures into a model folder.

    Args:
        folder: of the model, with model.yaml and its weights.
        run: what is known of its training and evaluation.
        facts: what whoever shares it says.

    Returns:
        The card.

    Raises:
        ConfigError: the folder's configuration cannot be used.
        WeightsError: its weights cannot be read.
    """
    config = read_config(folder / MODEL_FILE, "model")
    models = plain(config.models)
    draws = models.get("image_decoder") is not None
    title = facts.title or str(config.name)
    sheet, examples = _copy_pictures(run, folder)
    sizes = count_parameters(folder)
    page = (
        _environment()
        .from_string(_template())
        .render(
            front=_front_matter(title, run, facts, draws=draws),
            title=title,
            kind=f"A `{str(models['_target_']).rpartition('.')[2]}`",
            draws=draws,
            parameters=short_number(sum(sizes.values())),
            parts=list(_parts(models, sizes)),
            prompt=_PROMPTS[draws],
            figures=run.figures,
            world=run.world,
            machine=_words(run.machine, ("processor", "cores", "threads", "memory_gib", "device")),
            citations=list(dict.fromkeys(each.citation for each in run.figures if each.citation)),
            sheet=sheet,
            examples=examples,
            stages=run.stages,
            limits=facts.limits,
            config=(folder / MODEL_FILE).read_text(encoding="utf-8"),
            versions=_words(run.versions, run.versions or ()),
        )
    )
    card = folder / CARD_FILE
    card.write_text(page, encoding="utf-8")
    return card


def count_parameters(folder: Path) -> dict[str, int]:
    """Values of each part of a model folder, from the headers of its files.

    Raises:
        WeightsError: a file cannot be read.
    """
    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # the handle is no mapping
                    size = 1
                    for edge in file.get_slice(name).get_shape():
                        size *= edge
                    part = name.partition(".")[0]
                    sizes[part] = sizes.get(part, 0) + size
        except Exception as error:
            # The library raises its own error, which is a child of Exception alone.
            raise WeightsError(f"{path} cannot be read: {error}. Save the model again.") from error
    return sizes


def contact_sheet(pictures: Sequence[Path], *, edge: int = 64) -> Image.Image:
    """Pictures beside each other in rows, each fitted into a square.

    Args:
        pictures: files.
        edge: of a square, pixels.
    """
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * edge, rows * edge), "white")
    for place, path in enumerate(pictures):
        with Image.open(path) as picture:
            scale = edge / max(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
            fitted = picture.convert("RGB").resize((size[0], size[1]), way)
        sheet.paste(fitted, (place % columns * edge, place // columns * edge))
    return sheet


def _front_matter(title: str, run: RunFacts, facts: CardFacts, *, draws: bool) -> str:
    data = ModelCardData(
        license=facts.licence,
        library_name=LIBRARY,
        pipeline_tag="any-to-any" if draws else "image-text-to-text",
        tags=sorted({"multimodal", LIBRARY, *facts.tags}),
        base_model=list(facts.base_models) or None,
        model_name=title if _metrics(run) else None,
        eval_results=[_result(figure, run, draws=draws) for figure in _metrics(run)] or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _metrics(run: RunFacts) -> list[CardFigure]:
    return [figure for figure in run.figures if figure.name not in _TIME]


def _result(figure: CardFigure, run: RunFacts, *, draws: bool) -> EvalResult:
    world = run.world or "own"
    return EvalResult(
        task_type="any-to-any" if draws else "image-text-to-text",
        dataset_type=world,
        dataset_name=f"{world}, held-out part",
        metric_type=figure.name,
        metric_name=figure.title,
        metric_value=figure.value,
    )


def _parts(models: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[dict[str, str]]:
    for name, size in sizes.items():
        node = models.get(name)
        kind = str(node.get("_target_", "")) if isinstance(node, Mapping) else "parameter"
        yield {"name": name, "kind": kind.rpartition(".")[2], "size": short_number(size)}


def _copy_pictures(run: RunFacts, folder: Path) -> tuple[str | None, list[dict[str, Any]]]:
    """The sheet of what was drawn, and examples of what was read; paths inside the folder."""
    if run.folder is None:
        return None, []
    asked = list(read_examples(run.folder))
    drawn = [path for example in asked for path in example.drawn]
    shown = list(islice(_varied(asked), _NUM_EXAMPLES))
    if not drawn and not shown:
        return None, []
    (folder / _PICTURES).mkdir()
    sheet = None
    if drawn:
        sheet = (_PICTURES / "drawn.png").as_posix()
        contact_sheet(drawn[:_NUM_DRAWN]).save(folder / sheet)
    return sheet, [_example(example, folder) for example in shown]


def _varied(examples: Iterable[Example]) -> Iterator[Example]:
    """Examples that read pictures, one per answer."""
    seen: set[str] = set()
    for example in examples:
        if example.read and example.answer not in seen:
            seen.add(example.answer)
            yield example


def _example(example: Example, folder: Path) -> dict[str, Any]:
    names = []
    for path in example.read:
        shutil.copyfile(path, folder / _PICTURES / path.name)
        names.append((_PICTURES / path.name).as_posix())
    return {
        "pictures": names,
        "question": example.question,
        "reply": example.reply,
        "answer": example.answer,
        "is_right": example.is_right,
    }


def _words(values: Mapping[str, Any] | None, keys: Iterable[str]) -> str:
    """Names and values that are there: processor AMD EPYC, cores 2."""
    known = values or {}
    return ", ".join(f"{key.replace('_', ' ')} {known[key]}" for key in keys if key in known)


def _environment() -> Environment:
    # Markdown and not HTML: nothing is escaped, and a name that is not given is an error.
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def _template() -> str:
    return files("mllm_npu.zoo").joinpath("model_card.jinja").read_text(encoding="utf-8")
