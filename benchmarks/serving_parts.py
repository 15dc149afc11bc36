"""The model, the requests and the ways to answer them that `serving.py` compares.

Shape letters: L tokens of a prompt, D language width, G pictures, P tokens of a drawn picture.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from image_tokens import SIZES, ForcedSlots
from PIL import Image
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from mllm_npu.inference.events import Finished, TextDelta
from mllm_npu.inference.live_engine import LiveEngine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.prompts import embed_prompts
from mllm_npu.inference.row_maker import RowMaker
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.image_decoder.flow import FlowImageDecoder
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.language_model.slots import Span
from mllm_npu.models.mllm import SEED
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, ask
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

SLOTS, TILE = 64, 64
WORDS = ["how", "many", "dogs", "are", "there", "in", "the", "picture", "which", "colour", "is"]
WORDS += ["the", "house", "say", "what", "you", "see"]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A question, and how it is answered."""

    conversation: Conversation
    options: GenerationOptions


@dataclass(slots=True, kw_only=True)
class Answers:
    """What a way of answering gave.

    Args:
        texts: of each request.
        num_tokens: that were chosen in all.
        first: seconds from each request to its first token.
        seconds: of all.
    """

    texts: list[str] = field(default_factory=list)
    num_tokens: int = 0
    first: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Bench:
    """One model with its processor, and the same language model as transformers has it.

    Args:
        size: a key of SIZES.
    """

    def __init__(self, size: str) -> None:
        torch.manual_seed(0)
        tokenizer = train_tokenizer([" ".join(WORDS)] * 3, vocab_size=320)
        add_special_tokens(tokenizer, SpecialTokens(num_slots=SLOTS, num_locations=0))
        self.processor = Processor(
            tokenizer=tokenizer,
            any_resolution=AnyResolution(grids=["1x1"], tile_size=TILE, repeat_single_tile=False),
            chat_template=ChatTemplate(user_suffix="\n"),
            num_read_tokens=SLOTS,
            num_drawn_tokens=SLOTS,
            max_tokens=384,
        )
        config = {"vocab_size": len(tokenizer), "num_attention_heads": 8} | SIZES[size]
        vision = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
        vision |= {"image_size": TILE, "patch_size": 8, "intermediate_size": 1024}
        encoder = HuggingFaceVisionEncoder(config={"model_type": "siglip_vision_model", **vision})
        language_model = HuggingFaceLanguageModel(config={"model_type": "llama", **config})
        width = language_model.width
        self.model = SEED(
            language_model=language_model,
            vision_encoder=encoder,
            projector=AttentionResampler(input_dim=256, output_dim=width, num_queries=SLOTS),
            output_projector=AttentionResampler(input_dim=width, output_dim=256, num_queries=SLOTS),
            image_decoder=FlowImageDecoder(
                width=256, num_tokens=SLOTS, picture_size=TILE, pixel_unshuffle=2
            ),
            drawn_features=DrawnFeatures(width=256, num_tokens=SLOTS, normalize=False),
        ).eval()
        self.stock = LlamaForCausalLM(LlamaConfig(**config)).eval()
        self.stock.load_state_dict(language_model.causal_lm.state_dict())
        self._maker = RowMaker(model=self.model, processor=self.processor, device=CPU)

    def engine(self, *, max_slots: int) -> LiveEngine:
        """Ours, without a memory of prompts, since every prompt is another one here."""
        return LiveEngine(
            model=self.model,
            processor=self.processor,
            device=CPU,
            max_slots=max_slots,
            tokens_per_step=1024,
            prefix_gib=0,
        )

    def stock_texts(self, requests: Sequence[Request]) -> Answers:
        """Transformers' ``generate``, one request after the other; ours encodes the pictures."""
        never = [*self._maker.tokens._banned_C.nonzero().flatten().tolist()]
        never.append(self._maker.tokens.begin)
        answers, begun = Answers(), time.perf_counter()
        for request in requests:
            _, sample = self._maker.make(0, request.conversation, request.options)
            [prompt_LD] = embed_prompts(self.model, [sample], CPU, 8)
            [ids] = self.stock.generate(
                inputs_embeds=prompt_LD[None],
                attention_mask=torch.ones(1, len(prompt_LD), dtype=torch.int64),
                max_new_tokens=request.options.max_new_tokens,
                do_sample=False,
                suppress_tokens=never,
                eos_token_id=self.processor.eos_id,
                pad_token_id=self.processor.pad_id,
            ).tolist()
            kept = [number for number in ids if number != self.processor.eos_id]
            answers.texts.append(self.processor.decode_text(kept))
            answers.num_tokens += len(kept)
        answers.seconds = time.perf_counter() - begun
        return answers

    def stock_features(self, request: Request) -> Tensor:
        """A drawn picture's features by 65 forced steps of ``generate``, as the original does."""
        _, sample = self._maker.make(0, request.conversation, request.options)
        ids_1L, block = sample.input_ids[None], self._maker.tokens.block
        done = self.stock.generate(
            ids_1L,
            attention_mask=torch.ones_like(ids_1L),
            logits_processor=LogitsProcessorList([ForcedSlots(ids_1L.shape[1], block)]),
            max_new_tokens=SLOTS + 2,
            min_new_tokens=SLOTS + 2,
            do_sample=False,
            output_hidden_states=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        states = [step[-1] for step in done.hidden_states[2 : SLOTS + 2]]
        return self.model.predict_features(torch.cat(states, 1))

    def slot_features(self, requests: Sequence[Request]) -> Tensor:
        """Features of one drawn picture per request, all prompts and slots in one forward."""
        language_model = self.model.language_model
        prompts = [
            torch.cat([sample.input_ids, torch.tensor(self._maker.tokens.block)])
            for _, sample in (
                self._maker.make(0, request.conversation, request.options) for request in requests
            )
        ]
        spans = [Span(slot=s, start=0, length=len(ids)) for s, ids in enumerate(prompts)]
        slots = language_model.new_slots(len(prompts), max(map(len, prompts)))
        hidden_TD = slots.advance(language_model.embed(torch.cat(prompts)), spans)
        parts = torch.split(hidden_TD, [span.length for span in spans])
        states_GPD = torch.stack([part_LD[-1 - SLOTS : -1] for part_LD in parts])
        return self.model.predict_features(states_GPD)


def make_requests(number: int, *, seed: int, most_tokens: int) -> list[Request]:
    """Questions of unequal length, every second one with a picture of its own."""
    rng = random.Random(seed)
    requests = []
    for place in range(number):
        words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 24)))
        rows = np.random.default_rng(seed + place).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pictures = [Image.fromarray(rows).resize((TILE, TILE))] if place % 2 else []
        options = GenerationOptions(
            max_new_tokens=rng.randint(most_tokens // 3, most_tokens), images="forbid"
        )
        requests.append(Request(conversation=ask(words, pictures), options=options))
    return requests


def make_drawings(number: int, *, steps: int) -> list[Request]:
    """Wishes for one picture each."""
    return [
        Request(
            conversation=ask(" ".join(WORDS[place : place + 6])),
            options=GenerationOptions(
                max_new_tokens=1, images="force", image_steps=steps, seed=place
            ),
        )
        for place in range(number)
    ]


def answer_live(
    engine: LiveEngine, requests: Sequence[Request], *, at_once: int, apart: float = 0.0
) -> Answers:
    """So many callers put one request after the other; they begin ``apart`` seconds apart."""
    answers = Answers(texts=[""] * len(requests), first=[0.0] * len(requests))
    numbers, lock = iter(range(len(requests))), threading.Lock()

    def call(caller: int) -> None:
        time.sleep(caller * apart)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            parts, num_tokens = [], 0
            ticket = engine.submit(requests[number].conversation, requests[number].options)
            for event in ticket:
                if isinstance(event, TextDelta):
                    parts.append(event.text)
                elif isinstance(event, Finished):
                    num_tokens = event.num_new_tokens
            with lock:
                answers.texts[number] = "".join(parts)
                answers.first[number] = ticket.first_token or 0.0
                answers.num_tokens += num_tokens

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(at_once)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.seconds = time.perf_counter() - begun
    return answers
