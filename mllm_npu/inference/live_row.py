"""One request while its reply is being made: what was chosen, what is said, when it ends.

Shape letters: L tokens of the prompt, D language width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Generator, Tensor

from mllm_npu.batch import Blocks
from mllm_npu.errors import RequestError
from mllm_npu.inference.event_order import EventOrder
from mllm_npu.inference.events import Event, Finished, FinishReason, TokenLogprob
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.prefix_cache import Marks
from mllm_npu.inference.sampling import Chosen
from mllm_npu.inference.spoken_text import SpokenText
from mllm_npu.processing.grounding import Box

PICTURE_SEED_STRIDE = 1_000_003


@dataclass(slots=True, kw_only=True, eq=False)
class LiveRow:
    """The state of one request.

    Args:
        number: place of the request among those asked together or before it.
        options: as asked.
        room: tokens that still fit after the prompt.
        seed: of this request, never None.
        decode: token ids -> text.
        read_boxes: token ids -> boxes they name.
        image_block: ids of a whole picture.
        stop_ids: ids that end a reply.
        shown: the last picture of the question, which a drawn one may change.
        prompt_LD: embeddings of the question, float; None until they are made.
        prompt_ids: its tokens, without pictures.
        prompt_blocks: runs of its tokens that see all of themselves.
        marks: what its tokens stand for, where prompts are kept.
        num_prompt: its length, where there are no embeddings yet.

    Attributes:
        ids: tokens of the reply, whole pictures among them.
        fed: tokens of prompt and reply that the model has taken.
        draws: the reply ends with a picture whose tokens the model has not taken.
        order: holds back what stands behind a picture.
        error: what ended the reply, where something went wrong.
    """

    number: int
    options: GenerationOptions
    room: int
    seed: int
    decode: Callable[[Sequence[int]], str]
    read_boxes: Callable[[Sequence[int]], tuple[Box, ...]] = lambda ids: ()
    image_block: Sequence[int]
    stop_ids: frozenset[int]
    shown: Image.Image | None = None
    prompt_LD: Tensor | None = None
    prompt_ids: Sequence[int] = ()
    prompt_blocks: Blocks = ()
    marks: Marks | None = None
    num_prompt: int = 0
    ids: list[int] = field(default_factory=list)
    fed: int = 0
    num_chosen: int = 0
    num_pictures: int = 0
    draws: bool = False
    finished: bool = False
    error: Exception | None = None
    order: EventOrder = field(default_factory=EventOrder)
    generator: Generator = field(init=False)
    _text: SpokenText = field(init=False)

    def __post_init__(self) -> None:
        if self.prompt_LD is not None:
            self.num_prompt = len(self.prompt_LD)
        self.generator = Generator().manual_seed(self.seed)
        self._begin_text()

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and reply so far."""
        return self.num_prompt + len(self.ids)

    @property
    def num_pending(self) -> int:
        """Tokens the model has not taken."""
        return self.num_tokens - self.fed

    @property
    def whole_blocks(self) -> Blocks:
        """Runs of tokens that the model takes at once."""
        if not self.draws:
            return self.prompt_blocks
        drawn = (self.num_tokens - len(self.image_block), self.num_tokens)
        return (*self.prompt_blocks, drawn)

    @property
    def history(self) -> list[int]:
        """Ids that were read and written."""
        return [*self.prompt_ids, *self.ids]

    @property
    def may_draw(self) -> bool:
        """Whether the next token may begin a picture: allowed, and there is room for all of it."""
        fits = len(self.ids) + len(self.image_block) <= self.room
        return self.options.images != "forbid" and fits

    def check_room(self) -> None:
        """Refuse a question after which no reply fits.

        Raises:
            RequestError: if there is no room for a token, or for the picture that must come first.
        """
        needed = len(self.image_block) if self.options.images == "force" else 1
        if self.room < needed:
            raise RequestError(
                f"The question has {self.num_prompt} tokens, the reply needs {needed} more at "
                f"least, at most {self.num_prompt + self.room} fit in all. Shorten the text or "
                "give fewer images."
            )

    def take(self, chosen: Chosen) -> list[Event]:
        """Add a chosen token; gives the text that is certain now, and the end if this was it."""
        token_id = chosen.token_id
        if token_id in self.stop_ids:
            return self.finish("stop")
        if self.image_block and token_id == self.image_block[0]:
            return self.begin_picture()
        self.num_chosen += 1
        self.ids.append(token_id)
        said = self._text.push(token_id, self._describe(chosen))
        if self._text.stopped:
            return [*said, *self.finish("stop")]
        return [*said, *self.finish_if_full()]

    def begin_picture(self) -> list[Event]:
        """Add a whole picture's tokens; what was held back of the text before it comes out."""
        said = self._text.flush()
        self._begin_text()
        self.ids.extend(self.image_block)
        self.num_chosen += 1
        self.draws = True
        return [*said]

    def end_picture(self) -> None:
        """The model has taken the picture; the reply goes on after it."""
        self.draws = False
        self.num_pictures += 1

    def picture_generator(self) -> Generator:
        """Noise of the next picture: a function of the seed and the picture's number alone."""
        return Generator().manual_seed(self.seed + PICTURE_SEED_STRIDE * self.num_pictures)

    def finish_if_full(self) -> list[Event]:
        """End the reply if no further token may be chosen."""
        full = self.num_chosen >= self.options.max_new_tokens or len(self.ids) >= self.room
        return self.finish("length") if full else []

    def finish(self, reason: FinishReason) -> list[Event]:
        """End the reply; what was held back of its text comes out."""
        self.finished = True
        end = Finished(
            reason=reason,
            num_prompt_tokens=self.num_prompt,
            num_new_tokens=self.num_chosen,
            num_pictures=self.num_pictures,
            boxes=self.read_boxes(self.ids),
        )
        return [*self._text.flush(), end]

    def _begin_text(self) -> None:
        self._text = SpokenText(self.decode, stops=self.options.stop)

    def _describe(self, chosen: Chosen) -> TokenLogprob | None:
        if chosen.logprob is None:
            return None
        return TokenLogprob(
            token_id=chosen.token_id,
            text=self.decode([chosen.token_id]),
            logprob=chosen.logprob,
            top=tuple(
                TokenLogprob(token_id=number, text=self.decode([number]), logprob=value)
                for number, value in chosen.top
            ),
        )
