"""Scene words: captions, questions with answers, and editing instructions with the edited scene."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from mllm_npu.data.worlds.scene_pictures import (
    COLORS,
    MAX_OBJECTS,
    POSITIONS,
    SHAPES,
    Scene,
    Thing,
    sort_scene,
)

COUNTS = ("zero", "one", "two", "three")
WHOLE_WORDS = (*COLORS, *SHAPES, *COUNTS, "yes", "no", "top", "bottom", "left", "right")

DESCRIBE = (
    "Describe the image.",
    "What is in the image?",
    "What do you see?",
    "Tell me what the picture shows.",
)
DRAW = (
    "Draw {caption}.",
    "Please draw {caption}.",
    "Paint {caption}.",
    "Make a picture of {caption}.",
    "Show me {caption}.",
    "I would like to see {caption}.",
    "Create an image with {caption}.",
    "Can you draw {caption}?",
)
_ASK_COLOR = (
    "What color is the shape at the {position}?",
    "Which color has the shape at the {position}?",
    "Name the color at the {position}.",
)
_ASK_SHAPE = (
    "What shape is at the {position}?",
    "Which shape do you see at the {position}?",
    "Name the shape at the {position}.",
)
_ASK_COUNT = (
    "How many shapes are there?",
    "How many shapes do you see?",
    "Count the shapes.",
)
_ASK_EXISTS = (
    "Is there a shape at the {position}?",
    "Do you see a shape at the {position}?",
)
_ASK_THING = ("Is there a {color} {shape}?", "Do you see a {color} {shape}?")
_RECOLOR = ("Make {thing} {color}.", "Paint {thing} {color}.", "Change {thing} to {color}.")
_REMOVE = ("Remove {thing}.", "Take {thing} away.", "Delete {thing}.")
_MOVE = ("Move {thing} to the {position}.", "Put {thing} at the {position}.")
_RESHAPE = ("Turn {thing} into a {shape}.", "Replace {thing} with a {shape}.")
_ADD = ("Add a {color} {shape} at the {position}.", "Draw a {color} {shape} at the {position}.")


class Question(NamedTuple):
    """A question about a scene and its one answer."""

    kind: str
    text: str
    answer: str


class Edit(NamedTuple):
    """An instruction and the scene that follows from it."""

    kind: str
    text: str
    scene: Scene


def caption(scene: Scene) -> str:
    """The one caption of a scene: "a red circle at the top left and a blue cross at ..."."""
    return " and ".join(f"a {thing.color} {thing.shape} at the {thing.position}" for thing in scene)


def ask(scene: Scene, kind: str, rng: Random) -> Question:
    """A question of a kind: ``color shape count exists thing describe``."""
    thing = rng.choice(scene)
    match kind:
        case "color":
            wording = rng.choice(_ASK_COLOR).format(position=thing.position)
            return Question(kind, wording, thing.color)
        case "shape":
            wording = rng.choice(_ASK_SHAPE).format(position=thing.position)
            return Question(kind, wording, thing.shape)
        case "count":
            return Question(kind, rng.choice(_ASK_COUNT), COUNTS[len(scene)])
        case "exists":
            position = rng.choice(POSITIONS)
            found = any(thing.position == position for thing in scene)
            wording = rng.choice(_ASK_EXISTS).format(position=position)
            return Question(kind, wording, "yes" if found else "no")
        case "thing":
            if rng.random() < 0.5:
                thing = Thing(rng.choice(list(COLORS)), rng.choice(SHAPES), "", 0)
            found = any((t.color, t.shape) == (thing.color, thing.shape) for t in scene)
            wording = rng.choice(_ASK_THING).format(color=thing.color, shape=thing.shape)
            return Question(kind, wording, "yes" if found else "no")
    return Question("describe", rng.choice(DESCRIBE), caption(scene))


QUESTION_KINDS = ("color", "shape", "count", "exists", "thing", "describe")
TRAINING_KINDS = ("color", "shape", "count", "exists", "thing", "thing", "thing", "thing")
"""The search for a thing by colour and shape is hard, so it is asked often; captions have rows of
their own."""


def edit(scene: Scene, kind: str, rng: Random, accept: Callable[[Scene], bool]) -> Edit | None:
    """An edit of one of EDIT_KINDS whose result is accepted; None if there is none."""
    options = [(text, sort_scene(things)) for text, things in _options(scene, kind, rng)]
    rng.shuffle(options)
    for text, changed in options:
        if accept(changed):
            return Edit(kind, text, changed)
    return None


EDIT_KINDS = ("recolor", "remove", "move", "reshape", "add")


def _options(scene: Scene, kind: str, rng: Random) -> list[tuple[str, list[Thing]]]:
    """Every edit of a kind as text and changed things, the wording chosen at random."""
    free = [place for place in POSITIONS if all(thing.position != place for thing in scene)]
    if kind == "add":
        return _additions(scene, free, rng)
    found = []
    for thing in scene:
        name, others = refer(scene, thing), [other for other in scene if other is not thing]
        if kind == "remove" and others:
            found.append((rng.choice(_REMOVE).format(thing=name), others))
        if kind == "recolor":
            for color in sorted(COLORS.keys() - {thing.color}):
                text = rng.choice(_RECOLOR).format(thing=name, color=color)
                found.append((text, [*others, thing._replace(color=color)]))
        if kind == "move":
            for place in free:
                text = rng.choice(_MOVE).format(thing=name, position=place)
                found.append((text, [*others, thing._replace(position=place)]))
        if kind == "reshape":
            for shape in sorted(set(SHAPES) - {thing.shape}):
                text = rng.choice(_RESHAPE).format(thing=name, shape=shape)
                found.append((text, [*others, thing._replace(shape=shape)]))
    return found


def _additions(scene: Scene, free: list[str], rng: Random) -> list[tuple[str, list[Thing]]]:
    if len(scene) >= MAX_OBJECTS:
        return []
    number = max(thing.number for thing in scene) + 1
    found = []
    for place in free:
        for color in COLORS:
            for shape in SHAPES:
                text = rng.choice(_ADD).format(color=color, shape=shape, position=place)
                found.append((text, [*scene, Thing(color, shape, place, number)]))
    return found


def refer(scene: Scene, thing: Thing) -> str:
    """The shortest name that means this thing only, from "it" to one with its place."""
    if len(scene) == 1:
        return "it"
    others = [other for other in scene if other is not thing]
    if all(other.shape != thing.shape for other in others):
        return f"the {thing.shape}"
    if all((other.color, other.shape) != (thing.color, thing.shape) for other in others):
        return f"the {thing.color} {thing.shape}"
    return f"the {thing.color} {thing.shape} at the {thing.position}"
