"""The scenes world: coloured shapes to describe, ask about, draw and edit; tests are unseen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from mllm_npu.data.row import Row
from mllm_npu.data.worlds import scene_words as words
from mllm_npu.data.worlds.scene_pictures import (
    COLORS,
    PICTURE_SIZE,
    POSITIONS,
    SHAPES,
    Scene,
    Thing,
    describe_scene,
    draw_jitters,
    encode_picture,
    render,
    split_of,
)
from mllm_npu.data.worlds.world import SPLITS, Progress, Split, World, WorldWriter, pack_json
from mllm_npu.errors import ConfigError

VERSION = 2
NUM_SLOTS = 16
_SIZES: dict[Split, tuple[int, ...]] = {
    "train": (1, 1, 2, 2, 3),
    "valid": (2, 2, 3),
    "test": (2, 2, 3),
}
_HELD_OUT: dict[Split, tuple[int, int, int, int]] = {
    "valid": (100, 180, 100, 60),
    "test": (400, 1200, 400, 200),
}


def make_scenes(
    folder: str | Path,
    *,
    seed: int = 0,
    num_captions: int = 6000,
    num_questions: int = 12000,
    num_draws: int = 8000,
    num_edits: int = 4000,
    scale: float = 1.0,
    picture_size: int = PICTURE_SIZE,
    vocab_size: int = 420,
    progress: Progress | None = None,
) -> World:
    """Write the scenes world: caption, question, draw and edit shards of three splits.

    Training rows describe their scenes and are read with RenderedSource, which draws them anew at
    every visit. Rows of valid and test bring their pictures along. A composition belongs to one
    split only, also as the result of an edit.

    Args:
        folder: where; an earlier world there is replaced.
        seed: of what is composed.
        num_captions: training rows of picture and caption.
        num_questions: training rows of questions, half of them ask for a thing by colour and shape.
        num_draws: training rows that ask for a picture.
        num_edits: training rows of editing instructions.
        scale: factor on all numbers, for tiny worlds in tests.
        picture_size: edge of the pictures of valid and test.
        vocab_size: tokens of the tokenizer, image tokens not counted.
        progress: is told rows done and rows in all.

    Raises:
        ConfigError: if scale is not in (0, 1].
        DataError: if the folder cannot be written.
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"scale={scale} was asked for. Use more than 0 and at most 1.")
    given = {"train": (num_captions, num_questions, num_draws, num_edits), **_HELD_OUT}
    sizes = {split: [max(1, round(n * scale)) for n in given[split]] for split in SPLITS}
    writer = WorldWriter(
        folder=Path(folder), total=sum(map(sum, sizes.values())), progress=progress
    )
    for split in SPLITS:
        rows = SceneRows(split=split, seed=seed, picture_size=picture_size)
        captions, questions, draws, edits = sizes[split]
        writer.write("caption", split, rows.captions(captions))
        writer.write("question", split, rows.questions(questions))
        writer.write("draw", split, rows.draws(draws))
        writer.write("edit", split, rows.edits(edits))
    return writer.finish(
        name="scenes",
        version=VERSION,
        settings={
            "seed": seed,
            "num_captions": num_captions,
            "num_questions": num_questions,
            "num_draws": num_draws,
            "num_edits": num_edits,
            "scale": scale,
            "picture_size": picture_size,
        },
        splits={"rule": "sha256 of the composition: below 0.10 test, below 0.15 valid, else train"},
        vocab_size=vocab_size,
        num_slots=NUM_SLOTS,
        whole_words=words.WHOLE_WORDS,
    )


class SceneRows:
    """Composes rows of one split.

    Every json member holds ``scenes`` (pictures by member name) and ``meta`` (``kind``, and what a
    judge needs).

    Args:
        split: whose compositions may be used.
        seed: of what is composed.
        picture_size: edge of the pictures that valid and test rows bring along.
    """

    def __init__(self, *, split: Split, seed: int, picture_size: int) -> None:
        self.split = split
        self.seed = seed
        self.picture_size = picture_size

    def captions(self, count: int) -> Iterator[Row]:
        """Pictures with their caption."""
        rng = self._rng("caption")
        for number in range(count):
            scene = self._scene(rng)
            meta = {"kind": "caption", "objects": describe_scene(scene)}
            content = {"caption": words.caption(scene), "meta": meta}
            yield self._row("caption", number, {"png": scene}, content, rng)

    def questions(self, count: int) -> Iterator[Row]:
        """Chats of one question about a picture, the kinds in turn."""
        rng = self._rng("question")
        kinds = words.TRAINING_KINDS if self.split == "train" else words.QUESTION_KINDS
        for number in range(count):
            scene = self._scene(rng)
            kind = kinds[number % len(kinds)]
            question = words.ask(scene, kind, rng)
            user = [{"type": "image", "image": "0.png"}, {"type": "text", "text": question.text}]
            answer = [{"type": "text", "text": question.answer}]
            meta = {"kind": kind, "answer": question.answer, "objects": describe_scene(scene)}
            content = {"messages": _messages(user, answer), "meta": meta}
            yield self._row("question", number, {"0.png": scene}, content, rng)

    def draws(self, count: int) -> Iterator[Row]:
        """Chats that ask for a picture."""
        rng = self._rng("draw")
        for number in range(count):
            scene = self._scene(rng)
            prompt = rng.choice(words.DRAW).format(caption=words.caption(scene))
            user = [{"type": "text", "text": prompt}]
            answer = [{"type": "image", "image": "0.png"}]
            meta = {"kind": "draw", "objects": describe_scene(scene)}
            content = {"messages": _messages(user, answer), "meta": meta}
            yield self._row("draw", number, {"0.png": scene}, content, rng)

    def edits(self, count: int) -> Iterator[Row]:
        """A picture, an instruction, and the picture that follows from it."""
        rng, number = self._rng("edit"), 0
        while number < count:
            scene = self._scene(rng)
            kind = words.EDIT_KINDS[number % len(words.EDIT_KINDS)]
            edit = words.edit(scene, kind, rng, lambda after: split_of(after) == self.split)
            if edit is None:
                continue
            meta = {
                "kind": "edit",
                "operation": kind,
                "before": describe_scene(scene),
                "after": describe_scene(edit.scene),
            }
            content = {"instruction": edit.text, "meta": meta}
            pictures = {"source.png": scene, "target.png": edit.scene}
            yield self._row("edit", number, pictures, content, rng)
            number += 1

    def _scene(self, rng: Random) -> Scene:
        """A composition of this split."""
        while True:
            places = sorted(rng.sample(range(len(POSITIONS)), rng.choice(_SIZES[self.split])))
            scene = tuple(
                Thing(rng.choice(list(COLORS)), rng.choice(SHAPES), POSITIONS[place], number)
                for number, place in enumerate(places)
            )
            if split_of(scene) == self.split:
                return scene

    def _rng(self, kind: str) -> Random:
        return Random(f"{self.seed}/{self.split}/{kind}")

    def _row(
        self,
        kind: str,
        number: int,
        scenes: Mapping[str, Scene],
        content: Mapping[str, Any],
        rng: Random,
    ) -> Row:
        described = {name: describe_scene(scene) for name, scene in scenes.items()}
        members: dict[str, bytes] = {}
        if self.split != "train":
            jitters = draw_jitters(rng)
            for name, scene in scenes.items():
                picture = render(scene, jitters, size=self.picture_size)
                members[name] = encode_picture(picture)
        members["json"] = pack_json({**content, "scenes": described})
        return Row(key=f"{kind}-{self.split}-{number:06d}", members=members)


def _messages(user: list[dict[str, str]], answer: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
