"""Reads user texts safely: a control token that a user typed, such as </s>, is encoded as plain characters.

transformers' `split_special_tokens` is not enough: it skips tokens that are added but not special, and some vocabularies, such as T5's,
contain </s> as a piece. So a copy of the tokenizer knows no control tokens and splits any that the vocabulary would encode as one piece.
"""

import copy
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

_OPEN, _CLOSE, _OWN = "\ufdd0", "\ufdd1", "\ufdd2"
_NONCHARACTERS = dict.fromkeys(range(0xFDD0, 0xFDF0))  # valid texts have none; they are removed from user texts

_twins: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def controls(tokenizer: Any) -> set[str]:
    """Return the texts of a tokenizer's special tokens."""
    added = tokenizer.added_tokens_decoder.values()
    return {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}


def log_typed_tokens(tokenizer: Any, rows: Iterable[Collection[str]], advice: str) -> None:
    """Log how many of `rows`, each with several texts, contain typed control tokens; `advice` says what to do if they are intended."""
    pattern = re.compile("|".join(map(re.escape, sorted(controls(tokenizer), key=len, reverse=True))) or "(?!)")
    first = [next((match[0] for text in row if (match := pattern.search(text))), "") for row in rows]
    if typed := [token for token in first if token]:
        log.warning(
            "%d of %d rows contain a typed control token, e.g. %r, which is read as text; %s", len(typed), len(first), typed[0], advice
        )


def plain(tokenizer: Any, *, also: Collection[str] = (), keep: Collection[str] = ()) -> Any:
    """Return a copy of `tokenizer` that reads control tokens in a text as characters; tokens that it adds around a text stay.

    `also` are added tokens to read as text although they are not special, `keep` control tokens to keep (ignored if a tokenizer of the
    library `tokenizers` splits in Python). The copy only encodes; decode with the tokenizer itself.
    """
    twins = _twins.setdefault(tokenizer, {})
    key = frozenset(also), frozenset(keep)
    if key not in twins:
        twins[key] = _twin(tokenizer, (controls(tokenizer) | set(also)) - set(keep), set(keep))
    return twins[key]


def _twin(tokenizer: Any, hidden: Collection[str], kept: Collection[str]) -> Any:
    twin = copy.copy(tokenizer)
    twin.split_special_tokens = True
    if _can_be_copied(tokenizer):
        from tokenizers import Regex, Tokenizer, pre_tokenizers

        state = json.loads(tokenizer.backend_tokenizer.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["content"] in hidden or (token["special"] and token["content"] not in kept)
        backend = Tokenizer.from_str(json.dumps(state))
        if whole := sorted(token for token in hidden if len(token) > 1 and _in_one_piece(backend, token)):
            broken = pre_tokenizers.Split(Regex(_first_characters(whole)), "merged_with_previous")
            backend.pre_tokenizer = pre_tokenizers.Sequence([*filter(None, [backend.pre_tokenizer]), broken])
        twin._tokenizer = backend
    elif not tokenizer.is_fast and (added := {token.content for token in tokenizer.added_tokens_decoder.values()} - set(hidden)):
        twin.tokenize = _with_added(twin, added)
    return twin


def _with_added(twin: Any, added: Collection[str]) -> Callable[..., list[str]]:
    """Return a `tokenize` for a Python tokenizer that keeps the `added` tokens, which it would otherwise split as text."""
    between = re.compile(f"({'|'.join(map(re.escape, sorted(added, key=len, reverse=True)))})")
    inner = twin.tokenize

    def tokenize(text: str, **settings: Any) -> list[str]:
        parts = filter(None, between.split(text))
        return [piece for part in parts for piece in ([part] if part in added else inner(part, **settings))]

    return tokenize


def _can_be_copied(tokenizer: Any) -> bool:
    """Return whether the tokenizer's backend can be serialized; one that splits in Python, such as RoFormer's, cannot."""
    if not tokenizer.is_fast:
        return False
    try:
        tokenizer.backend_tokenizer.pre_tokenizer.__getstate__()
    except Exception:  # tokenizers has no exception class
        return False
    return True


def _in_one_piece(backend: Any, token: str) -> bool:
    """Return whether the vocabulary, without added tokens, encodes the text `token` as one piece."""
    number = backend.token_to_id(token)
    return any(piece.id == number for piece in backend.model.tokenize(token))


def _first_characters(tokens: Collection[str]) -> str:
    """Return a pattern that matches the first character of each of `tokens` where the rest of the token follows."""
    rests: dict[str, list[str]] = {}
    for token in tokens:
        rests.setdefault(token[0], []).append(re.escape(token[1:]))
    return "|".join(f"{re.escape(first)}(?=(?:{'|'.join(rest)}))" for first, rest in rests.items())


class Encoder:
    """Encodes texts that mix user input with a template: a control token is effective unless it is `quoted`."""

    def __init__(self, tokenizer: Any, also: Collection[str] = ()) -> None:
        """Use the tokenizer's special tokens and the added tokens `also` as control tokens."""
        self._tokenizer = tokenizer
        self._also = tuple(also)
        self._controls = controls(tokenizer) | set(also)
        tokens = sorted(self._controls, key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, tokens)) or "(?!)")
        self._marked = re.compile(f"{_OPEN}({self._tokens.pattern}){_CLOSE}|[{_OPEN}{_CLOSE}]|({self._tokens.pattern})")

    def quoted(self, text: str) -> str:
        """Return `text` with marks around each control token in it; a template may split it after that."""
        return self._tokens.sub(f"{_OPEN}\\g<0>{_CLOSE}", text.translate(_NONCHARACTERS))

    def control(self, text: str) -> re.Match[str] | None:
        """Return the first control token in an unquoted text."""
        return self._tokens.search(text)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of `text`, which may contain quoted parts, without the tokens that a tokenizer adds around it."""
        if not _can_be_copied(self._tokenizer):
            return self._pieces(text)
        twin, numbers = self._aliased()
        aliased = self._marked.sub(lambda match: f"{_OWN}{match[2]}" if match[2] else match[1] or "", text)
        return [numbers.get(token, token) for token in twin(aliased, add_special_tokens=False, verbose=False)["input_ids"]]

    def _aliased(self) -> tuple[Any, dict[int, int]]:
        """Return a copy of the tokenizer with an alias for each control token, and the token id by alias id."""
        twins = _twins.setdefault(self._tokenizer, {})
        key = ("aliases", frozenset(self._also))
        if key not in twins:
            from tokenizers import AddedToken

            twin = _twin(self._tokenizer, self._controls, ())
            numbers = {}
            added = {token.content: token for token in self._tokenizer.added_tokens_decoder.values()}
            for token in sorted(self._controls):
                own = added.get(token, AddedToken(token))
                alias = AddedToken(f"{_OWN}{token}", lstrip=own.lstrip, rstrip=own.rstrip, normalized=False, special=False)
                twin.backend_tokenizer.add_tokens([alias])
                numbers[twin.backend_tokenizer.token_to_id(alias.content)] = self._tokenizer.convert_tokens_to_ids(token)
            twins[key] = twin, numbers
        result: tuple[Any, dict[int, int]] = twins[key]
        return result

    def _pieces(self, text: str) -> list[int]:
        """Return the token ids from a Python tokenizer, encoding the text between control tokens piece by piece."""
        twin = plain(self._tokenizer, also=self._also)
        ids: list[int] = []
        pending = ""
        end = 0
        for mark in self._marked.finditer(text):
            pending += text[end : mark.start()] + (mark[1] or "")
            end = mark.end()
            if mark[2]:
                ids += [*self._bare(twin, pending), self._tokenizer.convert_tokens_to_ids(mark[2])]
                pending = ""
        return [*ids, *self._bare(twin, pending + text[end:])]

    def _bare(self, twin: Any, text: str) -> list[int]:
        return list(twin(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []
