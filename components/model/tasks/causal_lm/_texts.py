"""What a language model reads and learns of a row: conversations, token ids with a mask of what is learnt, windows and packs; no torch."""

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
"""The label of a token that no loss counts."""


class BadConversation(ValueError):
    """What is wrong with the cell `messages`, in words for the quarantine."""


@dataclass(frozen=True)
class Ids:
    """Token ids, and for each whether the model learns to write it."""

    ids: list[int]
    learnt: list[bool]

    def __add__(self, other: "Ids") -> "Ids":
        return Ids(self.ids + other.ids, self.learnt + other.learnt)


def conversation(cell: Any, *, answered: bool) -> list[Message]:
    """Return the messages of a cell: at most one of the system, then user and assistant in turns.

    Where it is not `answered` yet, a last turn of the assistant is left out: that is what is asked for.

    Raises:
        BadConversation: it is no such conversation, a turn has no visible character, or the last turn is not the assistant's although
            it is `answered`.
    """
    messages = _messages(cell)
    if not answered and messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    talk = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for place, message in enumerate(talk):
        if message["role"] != (wanted := ("user", "assistant")[place % 2]):
            raise BadConversation(f"messages: roles out of order: {message['role']} where {wanted} is expected")
    last = "assistant" if answered else "user"
    if not talk or talk[-1]["role"] != last:
        raise BadConversation(f"messages: the last turn is not of the {last}")
    for message in talk:
        if not normalise(message["content"], "NFC"):
            raise BadConversation(f"messages: a turn of the {message['role']} is empty")
    return messages


def _messages(cell: Any) -> list[Message]:
    try:
        found = json.loads(cell) if isinstance(cell, str) else cell
    except (ValueError, RecursionError):
        raise BadConversation("messages is not JSON") from None
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise BadConversation("messages is not a list of objects")
    for message in found:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise BadConversation("messages: a turn without role and content as texts")
    return found


def plain(messages: Sequence[Message]) -> str:
    """Return a conversation as one text for people."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class Reader:
    """Turns rows into token ids with a tokenizer; every text begins with the tokenizer's first token, or its end where it has none.

    What users typed is text: only a template and `separator` write control tokens.
    """

    def __init__(self, tokenizer: Any, separator: str, turns: str) -> None:
        """Put `separator` between prompt and completion, and learn `all` turns of the assistant or the `last`."""
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._separator = separator
        self._turns = turns
        self.end: int = tokenizer.eos_token_id
        self._start = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    @cached_property
    def template(self) -> Template:
        """The chat template.

        Raises:
            BadModel: it does not write an answer.
        """
        return Template(self._tokenizer)

    def text(self, text: str, *, ended: bool = True) -> Ids:
        """Return a text, all of which is learnt, and its end."""
        return _given([self._start]) + self._learnt(text, ended)

    def completion(self, prompt: str, completion: str | None) -> Ids:
        """Return a prompt, and its completion where there is one; only that is learnt, with its end."""
        read = _given([self._start, *self._encoder.ids(self._encoder.quoted(prompt) + self._separator)])
        return read if completion is None else read + self._learnt(completion, True)

    def question(self, messages: Sequence[Message]) -> Ids:
        """Return a conversation up to where the assistant's answer begins, with what the template writes before one."""
        return _given(self.template.encoder.ids(self.template.question(messages)))

    def chat(self, messages: Sequence[Message], turns: str = "") -> list[Ids]:
        """Return a whole conversation, of which the assistant's turns are learnt, each with its end.

        It is one sequence where the template writes an earlier turn as it wrote it when that was the last; else a turn has its own.
        """
        answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        found: list[Ids] = []
        written = ""
        for place in answers if (turns or self._turns) == "all" else answers[-1:]:
            turn = self.template.turn(messages[:place], messages[place]["content"])
            if written and turn.before.startswith(written):
                found[-1] += _given(self._behind(written, turn.before.removeprefix(written)))
            else:
                found.append(_given(self._behind("", turn.before)))
            ids = [*self._behind(turn.before, turn.learnt), *([] if turn.ended else [self.end])]
            found[-1] += Ids(ids, [True] * len(ids))
            written = turn.before + turn.learnt if turn.ended else ""  # an end of ours is in no later turn
        return found

    def stops(self) -> list[int]:
        """Return the ids that end an answer: the tokenizer's end, and the token that its chat template writes behind one."""
        return sorted({self.end, *(self.template.stops if self._tokenizer.chat_template else ())})

    def _behind(self, before: str, text: str) -> list[int]:
        """Return the ids of `text` as they are behind `before`: some tokenizers put a space before a text that begins."""
        encode = self.template.encoder.ids
        head = encode(before) if before else []
        whole = encode(before + text)
        return whole[len(head) :] if whole[: len(head)] == head else encode(text)

    def _learnt(self, text: str, ended: bool) -> Ids:
        ids = [*self._encoder.ids(self._encoder.quoted(text)), *([self.end] if ended else [])]
        return Ids(ids, [True] * len(ids))


def _given(ids: list[int]) -> Ids:
    return Ids(ids, [False] * len(ids))


def windows(row: Ids, width: int) -> Iterator[Ids]:
    """Yield `row` in parts of at most `width` tokens, so that every token that is learnt is predicted once.

    What is only read is cut from the left, down to half the width; a part begins with the last token of the one before.
    """
    first = row.learnt.index(True)
    start = max(0, min(first - width // 2, len(row.ids) - width))
    ids, learnt = row.ids[start:], row.learnt[start:]
    for place in range(0, max(1, len(ids) - 1), width - 1):
        part = Ids(ids[place : place + width], [False, *learnt[place + 1 : place + width]])
        if any(part.learnt):
            yield part


def packs(parts: Sequence[Ids], width: int) -> Iterator[list[Ids]]:
    """Yield `parts` in their order, as many together as `width` tokens hold."""
    held: list[Ids] = []
    for part in parts:
        if held and sum(len(each.ids) for each in [*held, part]) > width:
            yield held
            held = []
        held.append(part)
    if held:
        yield held


def table(parts: Sequence[Ids], width: int, packing: bool) -> pa.Table:
    """Return `input_ids`, `labels` and `length`; packed also `position_ids`, which begin anew with each part."""
    rows = list(packs(parts, width)) if packing else [[part] for part in parts]
    numbers = pa.list_(pa.int32())
    columns = {
        "input_ids": pa.array([[token for part in row for token in part.ids] for row in rows], numbers),
        "labels": pa.array([[label for part in row for label in labels(part)] for row in rows], numbers),
        "length": pa.array([sum(len(part.ids) for part in row) for row in rows], pa.int32()),
    }
    if packing:
        columns["position_ids"] = pa.array([[place for part in row for place in range(len(part.ids))] for row in rows], numbers)
    return pa.table(columns)


def labels(part: Ids) -> list[int]:
    """Return the ids that are learnt, and `IGNORED` for the others."""
    return [token if learnt else IGNORED for token, learnt in zip(part.ids, part.learnt, strict=True)]
