"""Fixtures of the zoo's tests: tiny random LLaVA models in the layout of the Hub, and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import (
    CONFIG_MAPPING,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from mllm_npu.processing.tokenizer import train_tokenizer

SPECIAL = ("<image>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>")
SPECIAL += ("<|eot_id|>",)
TEXTS = [
    "USER: what is shown in this picture? ASSISTANT: a cat, and a dog.",
    "[INST] which digit is this? [/INST] seven plus two is nine",
    "system user assistant You are a helpful assistant.",
] * 4
PICTURE_SIZES = {
    "square": (30, 30),
    "very wide": (200, 20),
    "very tall": (17, 190),
    "tiny": (3, 2),
    "larger than the grid": (300, 260),
    "odd": (61, 43),
}
DEVIATION = "deviation of logits: "
"""Beginning of the properties by which tests tell how far they were from transformers."""


@dataclass(frozen=True)
class Kind:
    """A family with a language model.

    Args:
        family: model_type.
        language: model_type of the language model.
        template: a chat template of which only the marks count.
        prompt: text for one question, with {pictures} and {text}.
        between: what stands for each picture.
        last: what stands behind the last of them.
        tile: pixels of a tile's edge.
        patch: pixels of a patch's edge.
        most: tiles whose tokens LLaVA-OneVision keeps.
        grids: rows and columns of grids; none means a few.
    """

    family: str
    language: str
    template: str
    prompt: str
    between: str = "<image>\n"
    last: str = ""
    tile: int = 28
    patch: int = 4
    most: int = 4
    grids: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.family} with {self.language}"

    def render(self, text: str, num_pictures: int) -> str:
        pictures = self.between * num_pictures + (self.last if num_pictures else "")
        return self.prompt.format(pictures=pictures, text=text)


VICUNA = ("USER: ASSISTANT:", "USER: {pictures}{text} ASSISTANT:")
INST = ("[INST] [/INST]", "[INST] {pictures}{text} [/INST]")
LLAMA3 = (
    "<|start_header_id|>",
    "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant."
    " You are able to understand the visual content that the user provides, and assist the user "
    "with a variety of tasks using natural language.<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\n{pictures}{text}<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
    "\n\n",
)
CHATML = (
    "<|im_start|>{{ x }}<|im_end|>\n",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{pictures}{text}"
    "<|im_end|>\n<|im_start|>assistant\n",
)
ONEVISION = (
    "<|im_start|>{{ x }}<|im_end|>",
    "<|im_start|>user {pictures}{text}<|im_end|><|im_start|>assistant\n",
)
KINDS = {
    kind.name: kind
    for kind in (
        Kind("llava", "llama", *VICUNA),
        Kind("llava_next", "llama", *LLAMA3),
        Kind("llava_next", "mistral", *INST),
        Kind("llava_next", "qwen2", *CHATML),
        Kind("llava_onevision", "qwen2", *ONEVISION, between="<image>", last="\n"),
    )
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 3 and Qwen have one: bytes, and no blank before a text."""
    tokenizer = train_tokenizer(TEXTS, vocab_size=320)
    tokenizer.add_tokens(
        [AddedToken(spelling, normalized=False, special=True) for spelling in SPECIAL],
        special_tokens=True,
    )
    return _with_opening(tokenizer)


def blank_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2 and Mistral have one: a blank before every text that stands by itself."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    fast.add_tokens(
        [AddedToken(spelling, normalized=False, special=True) for spelling in SPECIAL],
        special_tokens=True,
    )
    return _with_opening(fast)


def _with_opening(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


@dataclass(frozen=True)
class HubModel:
    """A model of transformers, its processor, and the folder both were saved to."""

    kind: Kind
    folder: Path
    model: Any
    processor: Any

    def inputs(self, text: str, pictures: list[Image.Image]) -> Any:
        """What transformers makes of a question."""
        said = self.kind.render(text, len(pictures))
        given = [pictures] if self.kind.family == "llava_onevision" else pictures
        return self.processor(images=given if pictures else None, text=said, return_tensors="pt")

    @torch.no_grad()
    def logits(self, text: str, pictures: list[Image.Image]) -> torch.Tensor:
        """Logits of every token of a question, [L, W]."""
        return self.model(**self.inputs(text, pictures)).logits[0]


def build_model(kind: Kind, vocab_size: int, image_token: int, **changes: Any) -> Any:
    """A tiny random model of a family."""
    torch.manual_seed(7)
    text = {
        "model_type": kind.language,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab_size,
        "max_position_embeddings": 16384,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": kind.tile,
        "patch_size": kind.patch,
        "projection_dim": 24,
    }
    if kind.family == "llava_onevision":
        del vision["projection_dim"]
        vision |= {"model_type": "siglip_vision_model", "vision_use_head": False}
        changes = {"vision_aspect_ratio": f"anyres_max_{kind.most}", **changes}
    if kind.family != "llava":
        changes = {"image_grid_pinpoints": pinpoints(kind), **changes}
    config = CONFIG_MAPPING[kind.family](
        text_config=text, vision_config=vision, image_token_index=image_token, **changes
    )
    classes = {
        "llava": LlavaForConditionalGeneration,
        "llava_next": LlavaNextForConditionalGeneration,
        "llava_onevision": LlavaOnevisionForConditionalGeneration,
    }
    model = classes[kind.family](config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision_tower" in name or "projector" in name:
                parameter.normal_(std=0.2 if parameter.dim() > 1 else 0.5)
    return model


def pinpoints(kind: Kind) -> list[list[int]]:
    """Grids of a family, in pixels, as (height, width)."""
    few = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    many = tuple((rows, columns) for rows in range(1, 5) for columns in range(1, 5))
    grids = kind.grids or (few if kind.family == "llava_next" else many)
    return [[kind.tile * rows, kind.tile * columns] for rows, columns in grids]


class PictureProcessor(LlavaOnevisionProcessor):
    """The processor without its part for videos, which cannot be built without torchvision."""

    is_made = False

    @classmethod
    def make(cls, **parts):
        cls.is_made = False
        made = cls(**parts)
        cls.is_made = True
        return made

    def check_argument_for_proper_class(self, argument_name, argument):
        if argument is not None:
            return super().check_argument_for_proper_class(argument_name, argument)
        return type(None)

    @classmethod
    def get_attributes(cls):
        names = super().get_attributes()
        return [name for name in names if name != "video_processor" or not cls.is_made]


PictureProcessor.__name__ = "LlavaOnevisionProcessor"


def build_processor(kind: Kind, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Any:
    """The processor of transformers for a family, built by class."""
    square = {"height": kind.tile, "width": kind.tile}
    cropped = {"size": {"shortest_edge": kind.tile}, "crop_size": square}
    common = {"tokenizer": tokenizer, "chat_template": kind.template}
    if kind.family == "llava_onevision":
        return PictureProcessor.make(
            image_processor=LlavaOnevisionImageProcessorPil(
                size=square,
                image_grid_pinpoints=pinpoints(kind),
                image_mean=[0.5] * 3,
                image_std=[0.5] * 3,
                **changes,
            ),
            num_image_tokens=(kind.tile // kind.patch) ** 2,
            vision_feature_select_strategy="full",
            vision_aspect_ratio=f"anyres_max_{kind.most}",
            **common,
        )
    told = {"patch_size": kind.patch, "vision_feature_select_strategy": "default"}
    if kind.family == "llava_next":
        pixels = LlavaNextImageProcessorPil(
            **cropped, image_grid_pinpoints=pinpoints(kind), **changes
        )
        return LlavaNextProcessor(pixels, **common, **told, num_additional_image_tokens=1)
    pixels = LlavaImageProcessorPil(**cropped, **changes)
    return LlavaProcessor(pixels, **common, **told, num_additional_image_tokens=1)


def make_hub_model(kind: Kind, folder: Path, *, pixels: Any = None, **changes: Any) -> HubModel:
    """Build a model with its processor, and save both as transformers does."""
    makes_blanks = kind.language in ("llama", "mistral") and "header" not in kind.template
    tokenizer = blank_tokenizer() if makes_blanks else byte_tokenizer()
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    model = build_model(kind, len(tokenizer) + 6, image_token, **changes)
    processor = build_processor(kind, tokenizer, **(pixels or {}))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if kind.family == "llava_onevision":
        # As the Hub has it; the other families save theirs inside of processor_config.json.
        processor.image_processor.save_pretrained(folder)
    return HubModel(kind=kind, folder=folder, model=model, processor=processor)


@pytest.fixture(scope="session")
def kinds() -> dict[str, Kind]:
    """Every family with every language model."""
    return KINDS


@pytest.fixture(scope="session")
def make_hub():
    """Makes one model of a kind in a folder, with changes of its own."""
    return make_hub_model


@pytest.fixture(scope="session")
def hub_models(tmp_path_factory):
    """One model of each kind, made when it is asked for."""
    made: dict[str, HubModel] = {}

    def find(name: str) -> HubModel:
        if name not in made:
            made[name] = make_hub_model(KINDS[name], tmp_path_factory.mktemp("hub") / "model")
        return made[name]

    return find


@pytest.fixture(scope="session")
def pictures() -> dict[str, Image.Image]:
    """Noise with a slope, so that every place of a picture differs, of sizes that matter."""
    random = np.random.default_rng(3)
    made = {}
    for name, (width, height) in PICTURE_SIZES.items():
        slope = (
            np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
        )
        pixels = slope + random.integers(0, 70, (height, width, 3))
        made[name] = Image.fromarray(pixels.astype(np.uint8))
    return made


@pytest.fixture
def note_deviation(record_property):
    """Remember how far logits of a family were from transformers'."""

    def note(name: str, value: float) -> None:
        record_property(DEVIATION + name, value)

    return note


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the largest deviation of logits of each family, from whichever process it came."""
    largest: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if str(name).startswith(DEVIATION):
                    largest[name] = max(value, largest.get(name, 0.0))
    if largest:
        terminalreporter.section("largest deviation of logits from transformers, float32")
        for name, value in sorted(largest.items()):
            terminalreporter.write_line(f"{name.removeprefix(DEVIATION)}: {value:.2e}")
