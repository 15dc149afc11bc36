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
from mllm_npu.inference.events import Event, Finished, FinishReason, TextDelta
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.text_stream import TextStream
from mllm_npu.processing.grounding import Box

PICTURE_SEED_STRIDE = 1_000_003


@dataclass(slots=True, kw_only=True)
class LiveRow:
    """The state of one request.

    Args:
        number: place of the request among those asked together.
        options: as asked.
        prompt_LD: embeddings of the question, float.
        prompt_blocks: runs of its tokens that see all of themselves.
        room: tokens that still fit after the prompt.
        seed: of this request, never None.
        decode: token ids -> text.
        read_boxes: token ids -> boxes they name.
        image_block: ids of a whole picture.
        stop_ids: ids that end a reply.
        shown: the last picture of the question or the reply, which a drawn one may change.
    """

    number: int
    options: GenerationOptions
    prompt_LD: Tensor
    room: int
    seed: int
    decode: Callable[[Sequence[int]], str]
    read_boxes: Callable[[Sequence[int]], tuple[Box, ...]] = lambda ids: ()
    image_block: Sequence[int]
    stop_ids: frozenset[int]
    shown: Image.Image | None = None
    prompt_blocks: Blocks = ()
    ids: list[int] = field(default_factory=list)
    num_chosen: int = 0
    num_pictures: int = 0
    draws: bool = False
    finished: bool = False
    generator: Generator = field(init=False)
    _text: TextStream = field(init=False)

    def __post_init__(self) -> None:
        self.generator = Generator().manual_seed(self.seed)
        self._text = TextStream(self.decode)

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
            length = len(self.prompt_LD)
            raise RequestError(
                f"The question has {length} tokens, the reply needs {needed} more at least, "
                f"at most {length + self.room} fit in all. Shorten the text or give fewer images."
            )

    def take(self, token_id: int) -> list[Event]:
        """Add a chosen token; gives the text that is certain now, and the end if this was it."""
        if token_id in self.stop_ids:
            return self._finish("stop")
        if token_id == self.image_block[0]:
            return self.begin_picture()
        self.num_chosen += 1
        self.ids.append(token_id)
        return [*self._say(self._text.push(token_id)), *self.finish_if_full()]

    def begin_picture(self) -> list[Event]:
        """Add a whole picture's tokens; what was held back of the text before it comes out."""
        said = self._say(self._text.flush())
        self._text = TextStream(self.decode)
        self.ids.extend(self.image_block)
        self.num_chosen += 1
        self.draws = True
        return said

    def end_picture(self, picture: Image.Image) -> None:
        """The picture is drawn; the reply goes on after it, and may change it."""
        self.shown = picture
        self.draws = False
        self.num_pictures += 1

    def picture_generator(self) -> Generator:
        """Noise of the next picture: a function of the seed and the picture's number alone."""
        return Generator().manual_seed(self.seed + PICTURE_SEED_STRIDE * self.num_pictures)

    def finish_if_full(self) -> list[Event]:
        """End the reply if no further token may be chosen."""
        full = self.num_chosen >= self.options.max_new_tokens or len(self.ids) >= self.room
        return self._finish("length") if full else []

    def _finish(self, reason: FinishReason) -> list[Event]:
        self.finished = True
        end = Finished(
            reason=reason,
            num_prompt_tokens=len(self.prompt_LD),
            num_new_tokens=self.num_chosen,
            num_pictures=self.num_pictures,
            boxes=self.read_boxes(self.ids),
        )
        return [*self._say(self._text.flush()), end]

    @staticmethod
    def _say(text: str) -> list[Event]:
        return [TextDelta(text=text)] if text else []
