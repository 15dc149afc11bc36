"""Digit rows: compose captions, strips, pages and conversations out of the scans of one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from mllm_npu.data.row import Row
from mllm_npu.data.worlds import digit_words as words
from mllm_npu.data.worlds.digit_scans import DigitScans
from mllm_npu.data.worlds.world import Split, pack_json

STRIP_LENGTHS = range(2, 7)

Message = dict[str, Any]
Pictures = dict[str, bytes]


class DigitRows:
    """Composes rows of one split; never takes a scan of another.

    Every json member holds ``meta``: ``kind`` of question, the ``scans`` used, and what a judge
    needs to know.

    Args:
        scans: all scans.
        split: which of them may be used.
        seed: of what is composed.
    """

    def __init__(self, *, scans: DigitScans, split: Split, seed: int) -> None:
        self.scans = scans
        self.split = split
        self.seed = seed

    def captions(self) -> Iterator[Row]:
        """Each scan with its caption."""
        for number, scan in enumerate(self.scans.ids[self.split]):
            digit = self.scans.digit(scan)
            content = {"caption": words.fill(words.CAPTION, digit), "label": digit}
            meta = {"kind": "caption", "label": digit, "scans": [scan]}
            yield self._row("caption", number, {"png": self.scans.png(scan)}, content, meta)

    def strips(self, count: int) -> Iterator[Row]:
        """Wide strips of two to six digits with a question and the answer "4 0 7"."""
        rng = self._rng("ocr")
        for number in range(count):
            strip, labels, used = self._strip(number, rng)
            question = words.loosen(rng.choice(words.STRIP), rng)
            content = {"conversations": [question, _spaced(labels)]}
            meta = {"kind": "strip", "labels": labels, "scans": used}
            yield self._row("ocr", number, {"png": strip}, content, meta)

    def pages(self, count: int) -> Iterator[Row]:
        """Documents of two scans that go on with their sum, the larger one, or a drawing of it."""
        rng = self._rng("interleaved")
        for number in range(count):
            kind = ("sum", "larger", "draw_larger")[number % 3]
            first, second = self._pair(rng, equal=kind == "sum")
            a, b = self.scans.digit(first), self.scans.digit(second)
            pictures = {"0.png": self.scans.png(first), "1.png": self.scans.png(second)}
            parts: list[Message] = [
                {"text": rng.choice(words.FIRST_JOINS)},
                {"image": "0.png"},
                {"text": rng.choice(words.SECOND_JOINS)},
                {"image": "1.png"},
            ]
            used, join = [first, second], rng.choice(words.LAST_JOINS)
            if kind == "draw_larger":
                larger = first if a > b else second
                used.append(self._other(larger, rng))
                pictures["2.png"] = self.scans.png(used[2])
                parts += [
                    {"text": join + rng.choice(words.DRAW_DOCUMENTS)},
                    {"image": "2.png", "draw": True},
                ]
            else:
                endings = words.SUM_DOCUMENTS if kind == "sum" else words.LARGER_DOCUMENTS
                answer = words.NUMBERS[a + b if kind == "sum" else max(a, b)]
                parts.append({"text": join + rng.choice(endings).format(n=answer)})
            content = {"parts": [part for part in parts if part != {"text": ""}]}
            meta = {"kind": kind, "a": a, "b": b, "scans": used}
            yield self._row("interleaved", number, pictures, content, meta)

    def conversations(self, counts: Mapping[str, int]) -> Iterator[Row]:
        """Chats in mixed order, so many of each kind (one of the makers below)."""
        rng = self._rng("instruction")
        makers: dict[str, Callable[[int, Random], tuple[Pictures, list[Message], Message]]] = {
            "read": self._read,
            "draw": self._draw,
            "sum": self._sum,
            "larger": self._larger,
            "draw_larger": self._draw_larger,
            "look_then_draw": self._look_then_draw,
            "strip": self._strip_chat,
        }
        order = [(kind, number) for kind, count in counts.items() for number in range(count)]
        rng.shuffle(order)
        for place, (kind, number) in enumerate(order):
            pictures, messages, meta = makers[kind](number, rng)
            content = {"messages": messages}
            yield self._row("instruction", place, pictures, content, {"kind": kind, **meta})

    def unseen_wordings(self, draws_per_wording: int) -> Iterator[Row]:
        """Every scan asked about and every digit asked for in wordings kept out of training."""
        rng, number = self._rng("unseen"), 0
        for scan in self.scans.ids[self.split]:
            wording = words.UNSEEN_READ[number % len(words.UNSEEN_READ)]
            meta = {
                "kind": "read",
                "label": self.scans.digit(scan),
                "scans": [scan],
                "unseen": True,
            }
            messages = [_ask(wording, "0.png"), _say(words.NUMBERS[self.scans.digit(scan)])]
            pictures = {"0.png": self.scans.png(scan)}
            yield self._row("unseen", number, pictures, {"messages": messages}, meta)
            number += 1
        for wording in words.UNSEEN_DRAW:
            for place in range(draws_per_wording):
                digit, as_word = place % 10, bool(place // 10 % 2)
                scan = self.scans.draw_digit(self.split, digit, rng)
                meta = {"kind": "draw", "label": digit, "scans": [scan], "unseen": True}
                messages = [_ask(words.fill(wording, digit, as_word=as_word)), _show("0.png")]
                pictures = {"0.png": self.scans.png(scan)}
                yield self._row("unseen", number, pictures, {"messages": messages}, meta)
                number += 1

    def _read(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        ids = self.scans.ids[self.split]
        # Every scan comes once before one comes again, so a test of as many rows asks about all.
        scan = ids[number % len(ids)]
        digit = self.scans.digit(scan)
        messages = [
            _ask(words.loosen(words.choose_read_wording(rng), rng), "0.png"),
            _say(words.NUMBERS[digit]),
        ]
        return {"0.png": self.scans.png(scan)}, messages, {"label": digit, "scans": [scan]}

    def _draw(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        digit = number % 10
        scan = self.scans.draw_digit(self.split, digit, rng)
        prompt = words.fill(words.choose_draw_wording(rng), digit, as_word=rng.random() < 0.5)
        remark = words.fill(rng.choice(words.DRAWN_REMARKS), digit) if rng.random() < 0.15 else ""
        messages = [_ask(words.loosen(prompt, rng)), _show("0.png", remark=remark)]
        return {"0.png": self.scans.png(scan)}, messages, {"label": digit, "scans": [scan]}

    def _sum(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        pictures, meta = self._two(rng, equal=True)
        question = _ask(_loose(words.SUM, rng), "0.png", "1.png")
        return pictures, [question, _say(words.NUMBERS[meta["a"] + meta["b"]])], meta

    def _larger(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        pictures, meta = self._two(rng, equal=False)
        question = _ask(_loose(words.LARGER, rng), "0.png", "1.png")
        return pictures, [question, _say(words.NUMBERS[max(meta["a"], meta["b"])])], meta

    def _draw_larger(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        pictures, meta = self._two(rng, equal=False)
        scan = self._other(meta["scans"][meta["b"] > meta["a"]], rng)
        question = _ask(_loose(words.DRAW_LARGER, rng), "0.png", "1.png")
        label = {"label": max(meta["a"], meta["b"]), "scans": [*meta["scans"], scan]}
        pictures["2.png"] = self.scans.png(scan)
        return pictures, [question, _show("2.png")], {**meta, **label}

    def _look_then_draw(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        step = number % 2
        digit = rng.randrange(10 - step)
        seen = self.scans.draw_digit(self.split, digit, rng)
        drawn = self.scans.draw_digit(self.split, digit + step, rng, not_scan=seen)
        messages = [
            _ask(words.loosen(words.choose_read_wording(rng), rng), "0.png"),
            _say(words.NUMBERS[digit]),
            _ask(_loose(words.DRAW_NEXT if step else words.DRAW_SAME, rng)),
            _show("1.png"),
        ]
        meta = {"seen": digit, "label": digit + step, "scans": [seen, drawn]}
        return {"0.png": self.scans.png(seen), "1.png": self.scans.png(drawn)}, messages, meta

    def _strip_chat(self, number: int, rng: Random) -> tuple[Pictures, list[Message], Message]:
        strip, labels, used = self._strip(number, rng)
        messages = [_ask(_loose(words.STRIP, rng), "0.png"), _say(_spaced(labels))]
        return {"0.png": strip}, messages, {"labels": labels, "scans": used}

    def _strip(self, number: int, rng: Random) -> tuple[bytes, list[int], list[int]]:
        length = STRIP_LENGTHS[number % len(STRIP_LENGTHS)]
        used = [self.scans.draw(self.split, rng) for _ in range(length)]
        return self.scans.strip(used, rng), [self.scans.digit(scan) for scan in used], used

    def _two(self, rng: Random, *, equal: bool) -> tuple[Pictures, Message]:
        first, second = self._pair(rng, equal=equal)
        pictures = {"0.png": self.scans.png(first), "1.png": self.scans.png(second)}
        a, b = self.scans.digit(first), self.scans.digit(second)
        return pictures, {"a": a, "b": b, "scans": [first, second]}

    def _pair(self, rng: Random, *, equal: bool) -> tuple[int, int]:
        """Two scans; of different digits unless ``equal`` digits leave no question open."""
        first, second = rng.randrange(10), rng.randrange(10)
        while second == first and not equal:
            second = rng.randrange(10)
        scan = self.scans.draw_digit(self.split, first, rng)
        return scan, self.scans.draw_digit(self.split, second, rng, not_scan=scan)

    def _other(self, scan: int, rng: Random) -> int:
        return self.scans.draw_digit(self.split, self.scans.digit(scan), rng, not_scan=scan)

    def _rng(self, kind: str) -> Random:
        return Random(f"{self.seed}/{self.split}/{kind}")

    def _row(
        self, kind: str, number: int, pictures: Pictures, content: Message, meta: Message
    ) -> Row:
        members = {**pictures, "json": pack_json({**content, "meta": meta})}
        return Row(key=f"{kind}-{self.split}-{number:06d}", members=members)


def _ask(text: str, *pictures: str) -> Message:
    parts: list[Message] = [{"type": "image", "image": name} for name in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def _say(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _show(picture: str, *, remark: str = "") -> Message:
    text = [{"type": "text", "text": remark}] if remark else []
    return {"role": "assistant", "content": [*text, {"type": "image", "image": picture}]}


def _loose(wordings: Sequence[str], rng: Random) -> str:
    return words.loosen(rng.choice(wordings), rng)


def _spaced(labels: Sequence[int]) -> str:
    return " ".join(str(label) for label in labels)
