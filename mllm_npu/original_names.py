"""Know the names of the original mllm-npu and SEED-X, and say what each is called here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TARGET = "_target_"
FROM_PRETRAINED = "from_pretrained"

_SHOWN = 6
_NOTHING = "needed no more; leave it out"

TARGETS: Mapping[str, str] = {
    "SEED": "mllm_npu.models.mllm.SEED",
    "ContinuousLVLM": "mllm_npu.models.mllm.SEED",
    "GeneraliazedMultimodalModels": "mllm_npu.models.mllm.GeneralizedMultimodalModel",
    "VisionTransformerWithAttnPool": "mllm_npu.models.vision_encoder.qwen_vit.QwenVisionEncoder",
    "SigLIPVisionEncoder": "mllm_npu.models.vision_encoder.huggingface.HuggingFaceVisionEncoder",
    "AttentionResampler": "mllm_npu.models.projector.attention_resampler.AttentionResampler",
    "Resampler": "mllm_npu.models.projector.attention_resampler.AttentionResampler",
    "MLP": "mllm_npu.models.projector.mlp.MLPProjector",
    "SimplePooling": "mllm_npu.models.projector.average_pool.AveragePoolProjector",
    "get_peft_model_with_resize_embedding": (
        "mllm_npu.models.language_model.huggingface.HuggingFaceLanguageModel"
    ),
    "LlamaForCausalLM": "mllm_npu.models.language_model.huggingface.HuggingFaceLanguageModel",
    "LoraConfig": "mllm_npu.models.lora.LoraRecipe",
    "LlamaTokenizer": "mllm_npu.processing.tokenizer.load_tokenizer",
    "LlamaTokenizerFast": "mllm_npu.processing.tokenizer.load_tokenizer",
    "AutoTokenizer": "mllm_npu.processing.tokenizer.load_tokenizer",
    "init_processor": "mllm_npu.processing.processor.Processor",
    "get_transform": "mllm_npu.processing.processor.Processor",
    "SDXLAdapter": "mllm_npu.models.image_decoder.sdxl.SDXLImageDecoder",
    "SDXLAdapterWithLatentImage": "mllm_npu.models.image_decoder.sdxl_edit.SDXLEditImageDecoder",
    "ResamplerXLV2": "mllm_npu.models.image_decoder.resampler.ResamplerXLV2",
    "DiscreteModleIdentity": _NOTHING,
    "build_multi_datapipes": "mllm_npu.data.loader.PackedBatches",
    "build_caption_datapipes_with_pixels": "mllm_npu.data.tasks.caption.Caption",
    "build_ocr_datapipes_caption": "mllm_npu.data.tasks.ocr.Ocr",
    "build_interleave_datapipes_with_pixels": "mllm_npu.data.tasks.interleaved.Interleaved",
    "build_text_pretrain_datapipes_for_llm": "mllm_npu.data.tasks.pure_text.PureText",
    "build_llava_jsonl_datapipes": "mllm_npu.data.tasks.instruction.Instruction",
    "build_single_turn_edit_datapipes": "mllm_npu.data.tasks.edit.Edit",
}
"""Class or function of the original, without its module, to what takes its place."""

KEYS: Mapping[str, str] = {
    "mllm": "models, lora and tokenizer at the top",
    "mllm_model": "models",
    "peft_config": "lora",
    "input_resampler": "projector",
    "output_resampler": "output_projector",
    "pretrained_model_name_or_path": "path",
    "pretrained_model_path": "initialise_from",
    "freeze_vision_encoder": 'objective.trainable with "!vision_encoder.*"',
    "lm_loss_scale": "language_weight",
    "rec_loss_scale": "image_weight",
    "add_patch_pos": "patch_positions",
    "vit_down": "drawn_features.pooling=sequence",
    "kv_dim": "input_dim",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "target_modules": "lora.targets",
    "modules_to_save": "objective.trainable",
    "processor_name": "processor",
    "processor_json": "processor; mean and std are the vision encoder's",
    "datapipes": "dataset.sources",
    "sample_weights": "weight of each of dataset.sources",
    "img_first_ratio": "draw_share, which is 1 minus it",
    "num_img_in_tokens": "processor.num_read_tokens",
    "num_img_out_tokens": "processor.num_drawn_tokens",
    "multi_resolution": "processor.any_resolution",
    "resolution_grids": "processor.any_resolution.grids",
    "base_resolution": "processor.any_resolution.tile_size",
    "similarity_thr": "min_similarity",
    "cycle_count": "train.max_steps",
    "instruction_prompt": "processor.chat_template",
    "full_ft": "objective=detokenizer_full",
    "set_trainable_late": _NOTHING,
}
"""Key of the original that no part here takes, wherever it stands, to what takes its place."""

KEYS_OF_PARTS: Mapping[str, str] = {
    "grid_size": "num_queries, which is its square",
    "embed_dim": "output_dim",
    "heads": "num_heads",
    "layers": "num_layers",
    "image_size": "tile_size",
    "n_queries": "num_tokens",
    "r": "rank",
    "mse": "image_loss",
    "task_type": _NOTHING,
    "data_dir": "shards, see mllm-npu data",
    "image_dir": "shards, see mllm-npu data",
    "max_length": "processor.max_tokens",
    "batch_size": "dataset.tokens_per_pack",
    "dataset_name": "name",
}
"""The same for keys that parts here may have as well: they count below an original ``_target_``."""

_PLACES = (
    "src.",
    "mllm_npu.models.multimodal_encoder.",
    "mllm_npu.models.multimodal_projector.",
    "mllm_npu.models.language_models.",
    "mllm_npu.models.generation.",
    "mllm_npu.data.datapipes.",
    "mllm_npu.data.processor.",
    "mllm_npu.data.tasks.image_caption.",
    "mllm_npu.data.tasks.interleaved_image_text.",
)
_LIBRARIES = ("transformers.", "peft.")


def explain_original(values: Mapping[str, Any]) -> str | None:
    """What a configuration holds of the original, and what each of it is called here.

    Args:
        values: plain keys and values, as read from a YAML file.

    Returns:
        One line that names up to six of them by path, targets first, and counts the others; None
        where there is nothing of the original.
    """
    found = sorted(_find(values, ""), key=lambda item: not item[0])
    if not found:
        return None
    shown = "; ".join(sentence for _, sentence in found[:_SHOWN])
    rest = f"; and {len(found) - _SHOWN} more names" if len(found) > _SHOWN else ""
    return f"this is a configuration of the original: {shown}{rest}."


def is_original(target: object) -> bool:
    """Whether a ``_target_`` is a name of the original that is not one of ours."""
    if not isinstance(target, str):
        return False
    if target.startswith(_LIBRARIES):
        return short_name(target) in TARGETS
    if not target.startswith("mllm_npu."):
        return target.startswith(_PLACES)
    *_, last = target.split(".")
    builds_data = target.startswith("mllm_npu.data.") and last.startswith("build_")
    return target.startswith(_PLACES) or last == FROM_PRETRAINED or builds_data


def short_name(target: str) -> str:
    """Class or function of a ``_target_``: ``a.b.Name.from_pretrained`` -> ``Name``."""
    return target.removesuffix(f".{FROM_PRETRAINED}").rpartition(".")[2]


def _find(value: Any, path: str) -> Iterator[tuple[bool, str]]:
    """Whether it is a target, and the sentence, of everything original below a value."""
    if isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _find(member, f"{path}[{index}]")
    if not isinstance(value, Mapping):
        return
    target = value.get(TARGET)
    keys = {**KEYS, **KEYS_OF_PARTS} if is_original(target) else KEYS
    for key, member in value.items():
        where = f"{path}.{key}" if path else str(key)
        if key == TARGET and is_original(target):
            here = TARGETS.get(short_name(str(target)), "known here by no one name")
            yield True, f"{where} ({target}) is {here}"
        elif key in keys:
            yield False, f"{where} is {keys[key]}"
        yield from _find(member, where)
