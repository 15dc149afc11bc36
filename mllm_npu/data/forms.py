"""Forms: what a row can become, and how long each of that is, kept beside its shard.

A caption row is read or drawn, with one caption or another; an OCR row has one form only. The plan
chooses the form of every sample, so that packs are planned by the length the sample will have.

Shape letters: N samples, F forms of all samples, R read pictures of all forms.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mllm_npu.data.companions import find_companion, write_companion
from mllm_npu.errors import DataError
from mllm_npu.processing.length_rule import LengthRule
from mllm_npu.processing.tiling import Tiling

FORMS_VERSION = "1"
UNREADABLE_LENGTH = 1
"""Planned length of a row without a form; it is left out when its turn comes."""
_Kept = TypeVar("_Kept")
Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One thing a row can become.

    Args:
        share: how often it does, relative to the row's other forms.
        num_text_tokens: tokens of all its texts; an upper bound where the rng chooses among texts.
        num_learnt_tokens: those of them that are learnt.
        num_systems: system turns.
        num_users: turns of a user.
        num_assistants: turns of the assistant. Without any turn it is a document.
        reads: width and height of each picture that is read.
        num_drawn: pictures that are drawn.
    """

    share: float = 1.0
    num_text_tokens: int
    num_learnt_tokens: int
    num_systems: int = 0
    num_users: int = 0
    num_assistants: int = 0
    reads: tuple[tuple[int, int], ...] = ()
    num_drawn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FormTotals:
    """Sums over the samples of a shard, each form counted by its share.

    Args:
        num_samples: with a form.
        learnt: learnt tokens of texts, and one for every drawn picture.
        answers: turns of the assistant.
        documents: samples that are documents.
    """

    num_samples: int
    learnt: float
    answers: float
    documents: float

    def num_targets(self, rule: LengthRule) -> float:
        """Tokens that carry loss."""
        return self.learnt + self.answers * rule.learnt_answer + self.documents


@dataclass(frozen=True, slots=True, kw_only=True)
class FormTable:
    """The forms of the N samples of a shard.

    Args:
        first: number of each sample's first form, int64 [N + 1].
        share: float64 [F].
        text: text tokens, int64 [F].
        learnt: learnt text tokens, int64 [F].
        turns: turns of system, user, assistant, int64 [F, 3].
        drawn: drawn pictures, int64 [F].
        first_read: number of each form's first read picture, int64 [F + 1].
        reads: their width and height, int64 [R, 2].
    """

    first: Integers
    share: Numbers
    text: Integers
    learnt: Integers
    turns: Integers
    drawn: Integers
    first_read: Integers
    reads: Integers

    @classmethod
    def of(cls, samples: Iterable[Sequence[Form]]) -> Self:
        """The table of samples in their order; a sample without forms cannot be used."""
        rows = [tuple(forms) for forms in samples]
        forms = [form for row in rows for form in row]
        turns = [(form.num_systems, form.num_users, form.num_assistants) for form in forms]
        sizes = [size for form in forms for size in form.reads]
        return cls(
            first=np.cumsum([0, *(len(row) for row in rows)]),
            share=np.array([form.share for form in forms], dtype=np.float64),
            text=np.array([form.num_text_tokens for form in forms], dtype=np.int64),
            learnt=np.array([form.num_learnt_tokens for form in forms], dtype=np.int64),
            turns=np.array(turns, dtype=np.int64).reshape(-1, 3),
            drawn=np.array([form.num_drawn for form in forms], dtype=np.int64),
            first_read=np.cumsum([0, *(len(form.reads) for form in forms)]),
            reads=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    def choose(self, samples: Integers, chances: Numbers) -> Integers:
        """A form for each of the samples, by its share.

        Args:
            samples: their numbers, int64 [n].
            chances: one of [0, 1) for each, float64 [n].

        Returns:
            Numbers of forms within their sample, int64 [n]; 0 for samples without any.
        """
        before = np.concatenate([[0.0], np.cumsum(self.share)])
        begin, end = self.first[samples], self.first[samples + 1]
        wanted = before[begin] + chances * (before[end] - before[begin])
        found = np.searchsorted(before, wanted, side="right") - 1
        return np.maximum(np.minimum(found, end - 1) - begin, 0)

    def tokens(self, rule: LengthRule, any_resolution: Tiling) -> Integers:
        """Tokens of each form, int64 [F]."""
        systems, users, answers = self.turns.T
        frames = users * rule.user_frame + answers * rule.assistant_frame
        frames += systems * rule.system_frame
        frames += np.where(
            self._is_document(), rule.document_end, (systems == 0) * rule.default_system
        )
        pictures = self._sum_reads(
            lambda width, height, alone: (
                any_resolution.num_tokens(width, height, per_tile=rule.read_tile, alone=alone)
                + rule.read_picture
            )
        )
        pictures += self.drawn * rule.drawn_picture
        return rule.opening + self.text + frames + pictures

    def tiles(self, any_resolution: Tiling) -> Integers:
        """Tiles that the vision encoder sees of each form, int64 [F]."""
        tiles = self._sum_reads(
            lambda width, height, alone: any_resolution.num_tiles(width, height, alone=alone)
        )
        return tiles + self.drawn

    def targets(self, rule: LengthRule) -> Integers:
        """Tokens of each form that carry loss, int64 [F]."""
        return (
            self.learnt + self.drawn + self.turns[:, 2] * rule.learnt_answer + self._is_document()
        )

    def per_sample(
        self, values: Integers, samples: Integers, forms: Integers, empty: int
    ) -> Integers:
        """Values [F] of the chosen forms of samples [n]; ``empty`` for samples without any."""
        begin = self.first[samples]
        has_form = self.first[samples + 1] > begin
        places = np.minimum(begin + forms, max(len(values) - 1, 0))
        if not len(values):
            return np.full(len(samples), empty, dtype=np.int64)
        return np.where(has_form, values[places], empty)

    def totals(self) -> FormTotals:
        """Sums for weighing sources by what is learnt from them."""
        counts = np.diff(self.first)
        owner = np.repeat(np.arange(len(self)), counts)
        whole = np.bincount(owner, self.share, minlength=len(self))[owner]
        share = self.share / np.where(whole > 0, whole, 1.0)
        return FormTotals(
            num_samples=int((counts > 0).sum()),
            learnt=float((share * (self.learnt + self.drawn)).sum()),
            answers=float((share * self.turns[:, 2]).sum()),
            documents=float((share * self._is_document()).sum()),
        )

    def _is_document(self) -> NDArray[np.bool_]:
        """Which forms have no turn of a user or the assistant, bool [F]."""
        return self.turns[:, 1:].sum(axis=1) == 0

    def _sum_reads(self, count: Callable[[int, int, bool], int]) -> Integers:
        """A count of each read picture, summed over each form, int64 [F].

        Args:
            count: of a picture's width and height, and of whether it is the only one of its form.
        """
        if not len(self.reads):
            return np.zeros(len(self.text), dtype=np.int64)
        num_reads = np.diff(self.first_read)
        alone = np.repeat(num_reads == 1, num_reads).astype(np.int64)
        kinds, which = np.unique(np.c_[self.reads, alone], axis=0, return_inverse=True)
        per_kind = [count(width, height, bool(one)) for width, height, one in kinds.tolist()]
        per_read = np.array(per_kind, dtype=np.int64)[which.reshape(-1)]
        before = np.concatenate([[0], np.cumsum(per_read)])
        return before[self.first_read[1:]] - before[self.first_read[:-1]]


def forms_suffix(meaning: str) -> str:
    """Ending of the file that keeps the forms of a shard's rows under one meaning.

    Args:
        meaning: everything the forms follow from beside the shard: task and tokenizer.
    """
    return f".forms-{hashlib.sha256(meaning.encode()).hexdigest()[:12]}.safetensors"


def load_forms(shard: str, suffix: str, signature: dict[str, str]) -> FormTable | None:
    """The kept forms of a shard; None where there are none, or of another state of it."""
    return _read_kept(shard, suffix, signature, _to_table)


def load_totals(shard: str, suffix: str, signature: dict[str, str]) -> FormTotals | None:
    """The sums of kept forms, from the head of their file; None as ``load_forms``."""
    return _read_kept(shard, suffix, signature, _to_totals)


def _read_kept(
    shard: str, suffix: str, signature: dict[str, str], take: Callable[[Any], _Kept]
) -> _Kept | None:
    """What ``take`` finds in the kept file of this state of the shard."""
    path = find_companion(shard, suffix)
    if path is None:
        return None
    try:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("shard") != _state(signature):
                return None
            return take(file)
    except (OSError, SafetensorError):
        return None


def _to_table(file: Any) -> FormTable:
    return FormTable(**{field.name: file.get_tensor(field.name) for field in fields(FormTable)})


def _to_totals(file: Any) -> FormTotals:
    return FormTotals(**json.loads(file.metadata()["totals"]))


def keep_forms(shard: str, suffix: str, signature: dict[str, str], table: FormTable) -> None:
    """Write the forms of a shard; where nothing can be written they are counted again next time."""
    totals = table.totals()
    told = {
        "shard": _state(signature),
        "totals": json.dumps({name.name: getattr(totals, name.name) for name in fields(totals)}),
    }
    tensors = {
        field.name: torch.from_numpy(np.ascontiguousarray(getattr(table, field.name)))
        for field in fields(table)
    }
    try:
        write_companion(shard, suffix, save(tensors, metadata=told))
    except DataError:
        return


def _state(signature: dict[str, str]) -> str:
    return json.dumps({"forms": FORMS_VERSION, **signature}, sort_keys=True)
