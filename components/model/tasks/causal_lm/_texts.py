"""Convert rows to token ids with a mask of learnt tokens; split them into windows and pack them. Does not import torch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from components.core.text import normalise
from components.model.support.control_tokens import Encoder
from components.model.tasks.causal_lm._template import Message, Template

IGNORED = -100
"""The label of tokens that the loss ignores."""


class BadConversation(ValueError):
    """An invalid cell `messages`; the message is the quarantine reason."""


@dataclass(frozen=True)
class Ids:
    """Token ids, and for each whether it is learnt."""

    ids: list[int]
    learnt: list[bool]

    def __add__(self, other: "Ids") -> "Ids":
        return Ids(self.ids + other.ids, self.learnt + other.learnt)


def conversation(cell: Any, *, answered: bool) -> list[Message]:
    """Return the messages of a cell: an optional system turn, then alternating user and assistant turns.

    If not `answered`, a last assistant turn is removed.
    Raise BadConversation if the format or the order of the roles is wrong, or a turn is empty.
    """
    messages = _messages(cell)
    if not answered and messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for index, message in enumerate(turns):
        if message["role"] != (expected := ("user", "assistant")[index % 2]):
            raise BadConversation(f"messages: roles out of order: expected {expected}, found {message['role']}")
    last = "assistant" if answered else "user"
    if not turns or turns[-1]["role"] != last:
        raise BadConversation(f"messages: the last turn is not from the {last}")
    for message in turns:
        if not normalise(message["content"], "NFC"):
            raise BadConversation(f"messages: a turn of the {message['role']} is empty")
    return messages


def _messages(cell: Any) -> list[Message]:
    try:
        messages = json.loads(cell) if isinstance(cell, str) else cell
    except (ValueError, RecursionError):
        raise BadConversation("messages is not JSON") from None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadConversation("messages is not a list of objects")
    for message in messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise BadConversation("messages: a turn without text in role and content")
    return messages


def plain(messages: Sequence[Message]) -> str:
    """Return a conversation as one readable text."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class Reader:
    """Converts rows to token ids; every text begins with the start token, or the end token if there is none.

    User text never becomes control tokens; only the template and `separator` write these.
    """

    def __init__(self, tokenizer: Any, separator: str, turns: str) -> None:
        """Use `separator` between prompt and completion; `turns`: learn `all` assistant turns or the `last`."""
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._separator = separator
        self._turns = turns
        self.end: int = tokenizer.eos_token_id
        self._start = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    @cached_property
    def template(self) -> Template:
        """The chat template; raise BadModel if the template does not render an answer."""
        return Template(self._tokenizer)

    def text(self, text: str, *, ended: bool = True) -> Ids:
        """Return a fully learnt text with its end token."""
        return _context([self._start]) + self._learnt(text, ended)

    def completion(self, prompt: str, completion: str | None) -> Ids:
        """Return a prompt and, if given, its learnt completion with the end token."""
        context = _context([self._start, *self._encoder.ids(self._encoder.quoted(prompt) + self._separator)])
        return context if completion is None else context + self._learnt(completion, True)

    def question(self, messages: Sequence[Message]) -> Ids:
        """Return a conversation with the generation prompt of the template."""
        return _context(self.template.encoder.ids(self.template.question(messages)))

    def chat(self, messages: Sequence[Message], turns: str = "") -> list[Ids]:
        """Return a conversation with learnt assistant turns, each with its end.

        It is one sequence if the template renders an earlier turn the same as a last turn; else each turn is a separate sequence.
        """
        answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        sequences: list[Ids] = []
        rendered = ""
        for index in answers if (turns or self._turns) == "all" else answers[-1:]:
            turn = self.template.turn(messages[:index], messages[index]["content"])
            if rendered and turn.before.startswith(rendered):
                sequences[-1] += _context(self._after(rendered, turn.before.removeprefix(rendered)))
            else:
                sequences.append(_context(self._after("", turn.before)))
            ids = [*self._after(turn.before, turn.learnt), *([] if turn.ended else [self.end])]
            sequences[-1] += Ids(ids, [True] * len(ids))
            rendered = turn.before + turn.learnt if turn.ended else ""  # an added end token is not in later turns
        return sequences

    def stops(self) -> list[int]:
        """Return the token ids that end an answer: the end token, and that of the chat template."""
        return sorted({self.end, *(self.template.stops if self._tokenizer.chat_template else ())})

    def _after(self, before: str, text: str) -> list[int]:
        """Return the ids of `text` after `before`: some tokenizers add a space at the start of a text."""
        encode = self.template.encoder.ids
        head = encode(before) if before else []
        whole = encode(before + text)
        return whole[len(head) :] if whole[: len(head)] == head else encode(text)

    def _learnt(self, text: str, ended: bool) -> Ids:
        ids = [*self._encoder.ids(self._encoder.quoted(text)), *([self.end] if ended else [])]
        return Ids(ids, [True] * len(ids))


def _context(ids: list[int]) -> Ids:
    return Ids(ids, [False] * len(ids))


def windows(row: Ids, width: int) -> Iterator[Ids]:
    """Split `row` into parts of at most `width` tokens, so that every learnt token is predicted once.

    Context is truncated on the left to half the width; a part begins with the last token of the previous part.
    """
    first = row.learnt.index(True)
    start = max(0, min(first - width // 2, len(row.ids) - width))
    ids, learnt = row.ids[start:], row.learnt[start:]
    for position in range(0, max(1, len(ids) - 1), width - 1):
        part = Ids(ids[position : position + width], [False, *learnt[position + 1 : position + width]])
        if any(part.learnt):
            yield part


def packs(parts: Sequence[Ids], width: int) -> Iterator[list[Ids]]:
    """Group consecutive `parts` into packs of at most `width` tokens."""
    pack: list[Ids] = []
    for part in parts:
        if pack and sum(len(item.ids) for item in [*pack, part]) > width:
            yield pack
            pack = []
        pack.append(part)
    if pack:
        yield pack


def table(parts: Sequence[Ids], width: int, packing: bool) -> pa.Table:
    """Return `input_ids`, `labels` and `length`; with packing also `position_ids`, which restart at each part."""
    rows = list(packs(parts, width)) if packing else [[part] for part in parts]
    numbers = pa.list_(pa.int32())
    columns = {
        "input_ids": pa.array([[token for part in row for token in part.ids] for row in rows], numbers),
        "labels": pa.array([[label for part in row for label in labels(part)] for row in rows], numbers),
        "length": pa.array([sum(len(part.ids) for part in row) for row in rows], pa.int32()),
    }
    if packing:
        columns["position_ids"] = pa.array([[position for part in row for position in range(len(part.ids))] for row in rows], numbers)
    return pa.table(columns)


def labels(part: Ids) -> list[int]:
    """Return the learnt ids, and `IGNORED` for the others."""
    return [token if learnt else IGNORED for token, learnt in zip(part.ids, part.learnt, strict=True)]
