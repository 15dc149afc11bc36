"""Run any Hugging Face causal language model on embeddings: packed to train, cached to decode.

Shape letters: T packed tokens, S sequences, L longest sequence or new tokens of a row, B rows, D
width, N chosen tokens, W vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
)

from mllm_npu.batch import Blocks
from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.models.fused_layers import fuse_layers
from mllm_npu.models.grown_rows import NewRows, RowGrowth
from mllm_npu.models.huggingface_config import build_pretrained, read_config, resolve_dtype
from mllm_npu.models.interfaces import LanguageModel
from mllm_npu.models.language_model.attention_hook import ATTENTION_NAME, LAYOUT_KEYWORD
from mllm_npu.models.language_model.families import (
    PART,
    logit_rule,
    refuse_blocks,
    require_family,
    require_options,
)
from mllm_npu.models.language_model.key_value_cache import KeyValueCache
from mllm_npu.models.language_model.slot_cache import SlotCache
from mllm_npu.models.language_model.slot_layout import SlotLayout
from mllm_npu.models.language_model.slots import Slots
from mllm_npu.ops.block_attention import pack_blocks
from mllm_npu.ops.packing import pack_sequences, to_rows, to_tokens
from mllm_npu.ops.sequence_exchange import SequenceExchange


class HuggingFaceLanguageModel(LanguageModel):
    """A decoder from transformers, with our attention inside.

    Two ways to keep the sequences of a pack apart:

    - ``packed``: one row of T tokens; our attention function is handed the sequence ends. Nothing
      is padded outside attention. Works for every family whose layers pass keywords on to
      transformers' AttentionInterface (Llama, Qwen, Mistral, Gemma, Phi, GPT-NeoX, OPT, GPT-2,
      Granite, Cohere, OLMo ...). A family that does not is refused.
    - ``per_sequence``: rows right-padded to the longest sequence run through the family's own
      attention. Padding on the right of a causal row changes nothing before it, so this is exact
      for every family, also for those with ALiBi, convolutions or recurrent layers (BLOOM, Falcon,
      MPT, Mamba ...); it costs the padding.

    Args:
        config: ``model_type`` and keys of that family's config class; the weights start at random.
        path: local folder with ``config.json`` and safetensors; exactly one of ``config`` and
            ``path``.
        attention: "packed" or "per_sequence".
        vocab_size: rows the table and the head are grown to; None leaves them.
        new_rows: what those rows start as: "mean_times_3" or "mean_resizing", see `RowGrowth`.
        dtype: "float32", "bfloat16" or "float16" of the parameters.

    Raises:
        ConfigError: unknown family, key or option; a family that cannot run packed.
        WeightsError: the folder lacks parameters of the model.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        path: str | None = None,
        attention: Literal["packed", "per_sequence"] = "packed",
        vocab_size: int | None = None,
        new_rows: NewRows = "mean_times_3",
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        require_options(attention, new_rows)
        model_config = read_config(config, path, part=PART)
        self.attention = attention
        self.new_rows: NewRows = new_rows
        self.mixed_lengths = attention == "packed"
        require_family(model_config, attention)
        options: dict[str, Any] = (
            {"attn_implementation": ATTENTION_NAME} if attention == "packed" else {}
        )
        options["dtype"] = resolve_dtype(dtype, part=PART)
        self.causal_lm: Any = build_pretrained(
            AutoModelForCausalLM, model_config, path, part=PART, **options
        )
        fuse_layers(self.causal_lm)
        text_config = self.causal_lm.config.get_text_config()
        self._num_layers = int(text_config.num_hidden_layers)
        self.max_tokens = getattr(text_config, "max_position_embeddings", None)
        self._logit_scale, self._logit_softcap = logit_rule(text_config)
        self._layers_checked = attention == "per_sequence"
        self._exchange: SequenceExchange | None = None
        self.width = int(self.causal_lm.get_input_embeddings().embedding_dim)
        self.vocab_size = int(self.causal_lm.get_input_embeddings().num_embeddings)
        if vocab_size is not None:
            self.resize_vocabulary(vocab_size)

    def embed(self, ids: Tensor) -> Tensor:
        """Look up embeddings as the family scales them, int64 [...] -> float [..., D]."""
        return self.causal_lm.get_input_embeddings()(ids)

    def forward(
        self,
        embeds_TD: Tensor,
        *,
        position_ids_T: Tensor,
        sequence_ends: Sequence[int],
        blocks: Blocks = (),
    ) -> Tensor:
        """Run packed sequences, causal inside each, -> last hidden states float [T, D].

        Raises:
            RequestError: the ends do not match the tokens, or a sequence is longer than the model's
                positions.
            ConfigError: the family has layers that would let sequences see each other, or cannot
                have blocks.
        """
        if not sequence_ends or sequence_ends[-1] != embeds_TD.shape[0]:
            raise RequestError(
                f"sequence_ends={tuple(sequence_ends)} must end at the number of tokens, "
                f"{embeds_TD.shape[0]}."
            )
        if self.attention == "per_sequence":
            refuse_blocks(blocks)
            return self._forward_rows(embeds_TD, sequence_ends)
        receipts: list[int | None] | None = None if self._layers_checked else []
        exchange = self._exchange
        packing = pack_sequences(
            sequence_ends, embeds_TD.device, receipts=receipts, exchange=exchange
        )
        self._check_length(packing.longest)
        layout = {LAYOUT_KEYWORD: pack_blocks(packing, blocks) if blocks else packing}
        num_tokens = embeds_TD.shape[0]
        if exchange is not None:
            embeds_TD, position_ids_T = exchange.split(embeds_TD), exchange.split(position_ids_T)
        hidden_1TD = self._decoder(
            inputs_embeds=embeds_TD[None],
            position_ids=position_ids_T[None],
            use_cache=False,
            **layout,
        ).last_hidden_state
        if receipts is not None:
            self._check_layers(receipts)
            self._check_length(packing.longest)
        return hidden_1TD[0] if exchange is None else exchange.join(hidden_1TD[0], num_tokens)

    def share_sequences(self, exchange: SequenceExchange) -> None:
        """Let several ranks share the tokens of a pack; each gets all hidden states.

        Raises:
            ConfigError: built with attention=per_sequence.
        """
        if self.attention != "packed":
            raise ConfigError(
                "parallel.sequence_size was asked for, and the language model was built with "
                f"attention={self.attention}, which cannot share a sequence. Set it to 1."
            )
        self._exchange = exchange

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Score the vocabulary as the family scales and caps it, float [..., D] -> [..., W]."""
        scores = self.causal_lm.get_output_embeddings()(hidden_ND)
        scores = scores if self._logit_scale == 1.0 else scores * self._logit_scale
        if self._logit_softcap is None:
            return scores
        return torch.tanh(scores / self._logit_softcap) * self._logit_softcap

    def new_cache(self) -> KeyValueCache:
        """An empty cache; the number of rows is fixed by the first ``extend``.

        Raises:
            ConfigError: the family keeps its past in another form (Mamba and the like).
        """
        if "past_key_values" not in inspect.signature(self._decoder.forward).parameters:
            raise ConfigError(
                f"{type(self.causal_lm).__name__} has no key-value cache, so it can be trained "
                "here but not decoded; choose a family with attention."
            )
        own_layers = self.attention == "per_sequence"
        return KeyValueCache(
            states=DynamicCache(config=self.causal_lm.config) if own_layers else DynamicCache()
        )

    def extend(
        self,
        embeds_BLD: Tensor,
        cache: KeyValueCache,
        lengths: Sequence[int] | None = None,
        *,
        blocks: Sequence[Blocks] = (),
    ) -> Tensor:
        """Append tokens to every row of the cache and give their hidden states, float [B, L, D].

        Args:
            embeds_BLD: embeddings of the new tokens, padded on the right where rows get fewer than
                L.
            cache: from ``new_cache``, changed in place.
            lengths: valid new tokens of each row, 0..L; None means all. States at padding mean
                nothing.
            blocks: for each row the runs of its new tokens that see all of themselves.

        Raises:
            RequestError: rows or lengths that do not fit the cache, a row longer than the model's
                positions, or unequal lengths with attention=per_sequence (see ``mixed_lengths``).
        """
        num_rows, num_new = embeds_BLD.shape[:2]
        self._check_length(max(cache.plan(num_rows, num_new, lengths)))
        if not self.mixed_lengths:
            refuse_blocks(blocks)
            if lengths is not None and set(lengths) != {num_new}:
                raise RequestError(
                    "attention=per_sequence cannot extend rows by different lengths "
                    f"{tuple(lengths)}; decode these rows one by one."
                )
            cache.append(num_rows, num_new, None, embeds_BLD.device)
            return self._decoder(
                inputs_embeds=embeds_BLD, past_key_values=cache.states, use_cache=True
            ).last_hidden_state
        layout = cache.append(num_rows, num_new, lengths, embeds_BLD.device, blocks)
        return self._decoder(
            inputs_embeds=embeds_BLD,
            position_ids=layout.query_positions,
            past_key_values=cache.states,
            use_cache=True,
            **{LAYOUT_KEYWORD: layout},
        ).last_hidden_state

    def new_slots(
        self, num_slots: int, max_tokens: int, *, first_tokens: int | None = None
    ) -> Slots:
        """Slots of fixed size with attention=packed, else a cache per request."""
        if self.attention != "packed":
            return super().new_slots(num_slots, max_tokens)
        return SlotCache(
            run=self._run_slots,
            num_slots=num_slots,
            max_tokens=max_tokens,
            first_tokens=first_tokens,
        )

    def resize_vocabulary(self, num_tokens: int) -> None:
        """Grow the table and the head to ``num_tokens`` rows, by the rule ``new_rows``.

        Raises:
            ConfigError: fewer rows than there are.
        """
        old = self.vocab_size
        if num_tokens < old:
            raise ConfigError(
                f"The vocabulary has {old} rows and cannot shrink to {num_tokens}; give at least "
                f"{old}."
            )
        if num_tokens == old:
            return
        is_hollow = self.causal_lm.get_input_embeddings().weight.is_meta
        before = {name: self.get_parameter(name) for name in self._tables()}
        with torch.device("meta") if is_hollow else nullcontext():
            self.causal_lm.resize_token_embeddings(num_tokens, mean_resizing=False)
        self.vocab_size = num_tokens
        if is_hollow:
            return
        with torch.no_grad():
            for name, growth in self._tables().items():
                self.get_parameter(name).copy_(growth.grow(before[name][:old], num_tokens))

    def row_growths(self) -> dict[str, RowGrowth]:
        """How rows of the vocabulary are made that weights lack, by name of the parameter."""
        return self._tables()

    def sharding_units(self) -> Sequence[nn.Module]:
        """Decoder blocks in order of execution."""
        lists = (part for part in self._decoder.modules() if isinstance(part, nn.ModuleList))
        return list(next(blocks for blocks in lists if len(blocks) == self._num_layers))

    def _tables(self) -> dict[str, RowGrowth]:
        """Table and head by name; a head that is the table is left out."""
        table, head = self.causal_lm.get_input_embeddings(), self.causal_lm.get_output_embeddings()
        names = {id(p): name for name, p in self.named_parameters()}
        found = {names[id(table.weight)]: RowGrowth(rule=self.new_rows, is_head=False)}
        if head is not None and head.weight is not table.weight:
            for parameter in head.parameters():
                found[names[id(parameter)]] = RowGrowth(rule=self.new_rows, is_head=True)
        return found

    @property
    def _decoder(self) -> Any:
        return self.causal_lm.base_model

    def _run_slots(self, embeds_TD: Tensor, layout: SlotLayout) -> Tensor:
        self._check_length(max(span.end for span in layout.spans))
        layout.receipts = None if self._layers_checked else []
        hidden_1TD = self._decoder(
            inputs_embeds=embeds_TD[None],
            position_ids=layout.positions_T[None],
            use_cache=False,
            **{LAYOUT_KEYWORD: layout},
        ).last_hidden_state
        if layout.receipts is not None:
            self._check_layers(layout.receipts)
        return hidden_1TD[0]

    def _forward_rows(self, embeds_TD: Tensor, sequence_ends: Sequence[int]) -> Tensor:
        packing = pack_sequences(sequence_ends, embeds_TD.device, one_group=True)
        self._check_length(packing.longest)
        rows_SLD = to_rows(embeds_TD, packing).view(-1, packing.longest, self.width)
        hidden_SLD = self._decoder(inputs_embeds=rows_SLD, use_cache=False).last_hidden_state
        return to_tokens(hidden_SLD.flatten(0, 1), packing)

    def _check_length(self, longest: int) -> None:
        if self.max_tokens is not None and longest > self.max_tokens:
            raise RequestError(
                f"A sequence of {longest} tokens was asked for; the language model takes at most "
                f"{self.max_tokens} (max_position_embeddings, or a sliding window its layers do "
                "not pass on). Shorten it, or raise that number in the config."
            )

    def _check_layers(self, windows: list[int | None]) -> None:
        """Refuse a family with layers that do not use our attention; one window per call."""
        if len(windows) != self._num_layers:
            raise ConfigError(
                f"{type(self.causal_lm).__name__} used packed attention in {len(windows)} of "
                f"{self._num_layers} layers; the others would mix the sequences of a pack. Build "
                "it with attention=per_sequence."
            )
        window = getattr(self.causal_lm.config.get_text_config(), "sliding_window", None)
        if window is not None and all(passed is None for passed in windows):
            self.max_tokens = min(window, self.max_tokens or window)
        self._layers_checked = True
