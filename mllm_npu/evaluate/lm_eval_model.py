"""A model of this package as one that lm-eval asks: likelihoods, perplexity, replies.

lm-eval finds it under ``MODEL_NAME`` once this module is imported.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import simple_parse_args_string
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from mllm_npu.device.platform import pick_device
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.answer_book import fingerprint
from mllm_npu.evaluate.lm_eval_arguments import ModelArguments
from mllm_npu.evaluate.lm_eval_prompt import write_chat
from mllm_npu.evaluate.lm_eval_requests import (
    Group,
    group_requests,
    in_chunks,
    pictures_of,
    read_wishes,
    roll_windows,
)
from mllm_npu.evaluate.lm_eval_tokens import PairEncoder
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.likelihood import Question
from mllm_npu.model_folder import find_model_folder, list_model_files, load_engine

MODEL_NAME = "mllm_npu"

_MOST_NEW_TOKENS = 256
"""lm-eval's own longest reply where a task names none."""
_PATIENCE_SECONDS = 7 * 24 * 3600.0
"""Ranks wait for the slowest one; torchrun ends those that are left where one has died."""

_log = logging.getLogger("lm_eval.mllm_npu")


@register_model(MODEL_NAME)
class LmEvalModel(LM):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's requests with an engine, many at once.

    Args:
        engine: answers.
        max_length: longest prompt with its reply, where the model takes more; None: what it takes.
        seed: of replies that are sampled; the second to the same prompt has the next one.
        mesh: the ranks; lm-eval gives each its share of the documents.
        fingerprint: tells one model from another in lm-eval's report.
    """

    MULTIMODAL = True

    def __init__(
        self,
        *,
        engine: Engine,
        max_length: int | None = None,
        seed: int = 0,
        mesh: Mesh | None = None,
        fingerprint: str = "",
    ) -> None:
        super().__init__()
        self._engine, self._seed, self._fingerprint = engine, seed, fingerprint
        self._mesh = mesh or Mesh.single()
        self._rank, self._world_size = self._mesh.rank, self._mesh.world_size
        self._device = engine.device
        processor = engine.processor
        most = min(processor.max_tokens, engine.model.language_model.max_tokens or sys.maxsize)
        self.max_length = min(most, max_length or most)
        self._encoder = PairEncoder(processor=processor, max_tokens=self.max_length)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """The model of ``run=runs/digits,device=cpu``; see `create_from_arg_obj`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """The model that ``--model_args`` names, on every rank that torchrun has started.

        Raises:
            ConfigError: they cannot be used, or the run holds no model that answers.
            WeightsError: its weights do not fit.
        """
        asked = ModelArguments.read(arg_dict, additional_config or {})
        mesh = Mesh.start(pick_device(asked.device), timeout_seconds=_PATIENCE_SECONDS)
        folder = find_model_folder(asked.run)
        engine, config = load_engine(folder, asked.device)
        engine.max_batch = asked.batch_size or engine.max_batch
        return cls(
            engine=engine,
            max_length=asked.max_length,
            seed=asked.seed,
            mesh=mesh,
            fingerprint=fingerprint(list_model_files(folder, config)),
        )

    def loglikelihood(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding would write it.

        Requests of one prompt are weighed together, and each different one once.
        """
        answers: dict[int, tuple[float, bool]] = {}
        with self._bar("loglikelihood", len(requests), disable_tqdm) as bar:
            for groups in in_chunks(group_requests(requests)):
                questions, owners = self._lay_out(groups)
                for number, weighed in self._engine.weigh(questions):
                    for found, owned in zip(weighed, owners[number], strict=True):
                        for request in owned:
                            answers[request] = (found.logprob, found.is_greedy)
                            self._keep(requests[request], answers[request])
                        bar.update(len(owned))
        self._tell()
        return [answers[number] for number in range(len(requests))]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each text, in windows of what the model takes at once.

        Each token is weighed once; the first one after the begin token, or else the end token.
        """
        totals = [0.0] * len(requests)
        left: dict[int, int] = {}
        with self._bar("loglikelihood_rolling", len(requests), disable_tqdm) as bar:
            for windows in in_chunks(self._roll(requests, left)):
                questions = [question for _, question in windows]
                for place, (found,) in self._engine.weigh(questions):
                    number = windows[place][0]
                    totals[number] += found.logprob
                    left[number] -= 1
                    if not left[number]:
                        self._keep(requests[number], totals[number])
                        bar.update(1)
        self._tell()
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """A reply to each prompt, up to the first text of ``until``."""
        wishes = read_wishes(requests, default_tokens=self.max_gen_toks, seed=self._seed)
        # Those that run together are of a length, and the end is near when it seems so.
        order = sorted(range(len(requests)), key=lambda number: -len(requests[number].args[0]))
        conversations = []
        for number in order:
            request = requests[number]
            conversation = self._encoder.reader.read(request.args[0], pictures_of(request))
            room = self.max_length - wishes[number].options.max_new_tokens
            conversations.append(self._encoder.shorten(conversation, room))
        texts: dict[int, str] = {}
        with self._bar("generate_until", len(requests), disable_tqdm) as bar:
            options = [wishes[number].options for number in order]
            for place, reply in self._engine.replies(conversations, options):
                number = order[place]
                texts[number] = wishes[number].cut(reply.text)
                if not wishes[number].samples:
                    self._keep(requests[number], texts[number])
                bar.update(1)
        self._tell()
        return [texts[number] for number in range(len(requests))]

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as one text; it is laid out by the processor's template when it is asked.

        A last message of the assistant is the beginning of its reply, whatever
        ``add_generation_prompt`` says.
        """
        return write_chat(chat_history)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Prefix and suffix of every role, for lm-eval's report.

        Raises:
            ConfigError: a template is asked for by its name.
        """
        if isinstance(chat_template, str):
            raise ConfigError(
                f"The chat template {chat_template!r} was asked for; a model has one. Use "
                "--apply_chat_template without a name."
            )
        frames = self._engine.processor.chat_template.frames
        roles = ("system", "user", "assistant")
        return json.dumps(dict(zip(roles, frames, strict=False))) if chat_template else None

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Told in lm-eval's report."""
        return self._engine.processor.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """Tells prompts that lm-eval keeps for one tokenizer from those of another."""
        return f"{MODEL_NAME}-{self._engine.processor.tokenizer_fingerprint}"

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._engine.processor.eos_id

    @property
    def max_gen_toks(self) -> int:
        """Longest reply where a task names none: lm-eval's, or half of what the model takes."""
        return min(_MOST_NEW_TOKENS, self.max_length // 2)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval's report says of the model."""
        parameters = list(self._engine.model.parameters())
        return {
            "model_num_parameters": sum(each.numel() for each in parameters),
            "model_dtype": str(parameters[0].dtype),
            "model_sha": self._fingerprint,
        }

    def all_gather(self, tensor: Tensor) -> Tensor:
        """A host number of every rank, [ranks]."""
        if self._world_size == 1:
            return tensor
        found = [torch.empty_like(tensor, device="cpu") for _ in range(self._world_size)]
        dist.all_gather(found, tensor.cpu())
        return torch.stack(found)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """What every rank has, on the rank ``dst``."""
        if self._world_size == 1:
            return [obj]
        found = [None] * self._world_size if self._rank == dst else None
        dist.gather_object(obj, found, dst=dst)
        return found

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self._mesh.barrier()

    def _lay_out(self, groups: Sequence[Group]) -> tuple[list[Question], list[list[list[int]]]]:
        """Questions, and for each of their texts the requests it answers."""
        questions: list[Question] = []
        owners: list[list[list[int]]] = []
        for group in groups:
            texts = list(group.numbers)
            for pairs in self._encoder.encode(group.prompt, texts, group.pictures):
                questions.append((pairs.prompt, pairs.continuations))
                owners.append([group.numbers[texts[number]] for number in pairs.numbers])
        return questions, owners

    def _roll(
        self, requests: Sequence[Instance], left: dict[int, int]
    ) -> Iterator[tuple[int, Question]]:
        """Number of a request and one of its windows; ``left`` is told how many each has."""
        encoder = self._encoder
        for number, request in enumerate(requests):
            tokens = encoder.tokens(request.args[0])
            windows = roll_windows(tokens, encoder.prefix_id, self.max_length)
            left[number] = len(windows)
            for prompt, continuation in windows:
                yield number, (encoder.sample(prompt), (continuation,))

    def _bar(self, what: str, total: int, disabled: bool) -> Any:
        label = f"Running {what} requests"
        return tqdm(total=total, desc=label, disable=disabled or self._rank != 0)

    def _keep(self, request: Instance, answer: Any) -> None:
        """Remember an answer where lm-eval keeps them (``--use_cache``)."""
        self.cache_hook.add_partial(request.request_type, request.args, answer)

    def _tell(self) -> None:
        """Say once what was not asked as it was put."""
        encoder = self._encoder
        if encoder.num_cut:
            long = "%d prompts are longer than %d tokens; they lost their beginning."
            _log.warning(long, encoder.num_cut, self.max_length)
        if encoder.reader.spelt:
            _log.warning(
                "Texts spell control tokens (%s); they are read as letters.",
                " ".join(sorted(encoder.reader.spelt)),
            )
        encoder.num_cut = 0
        encoder.reader.spelt.clear()
