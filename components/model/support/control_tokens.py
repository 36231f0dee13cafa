"""Texts of users as a model reads them: a control token that somebody typed, as </s>, is read as the characters it is written with.

transformers' `split_special_tokens` is not enough: it leaves out what is added but not special, and a vocabulary of pieces, as T5's,
has </s> among its pieces. A twin of the tokenizer knows no control token, and breaks one that its vocabulary would make in one piece.
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
_NONCHARACTERS = dict.fromkeys(range(0xFDD0, 0xFDF0))  # no text has them; what is typed loses them

_twins: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def controls(tokenizer: Any) -> set[str]:
    """Return the control tokens of a tokenizer, as they are written: the special ones."""
    added = tokenizer.added_tokens_decoder.values()
    return {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}


def log_typed_tokens(tokenizer: Any, rows: Iterable[Collection[str]], advice: str) -> None:
    """Say in the log how many of `rows`, each of some texts, have control tokens typed in them, with `advice` for who means them."""
    known = re.compile("|".join(map(re.escape, sorted(controls(tokenizer), key=len, reverse=True))) or "(?!)")
    first = [next((found[0] for text in row if (found := known.search(text))), "") for row in rows]
    if typed := [token for token in first if token]:
        log.warning("%d of %d rows have a control token typed in them, as %r, read as text; %s", len(typed), len(first), typed[0], advice)


def plain(tokenizer: Any, *, also: Collection[str] = (), keep: Collection[str] = ()) -> Any:
    """Return a twin of `tokenizer` that reads no control token from a text; what it adds around a text stays.

    `also` are added tokens to read as text though they are not special, and `keep` the control tokens that count all the same (not where
    a tokenizer of the library `tokenizers` splits in Python). The twin encodes; what decodes is the tokenizer itself.
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
    elif not tokenizer.is_fast and (known := {token.content for token in tokenizer.added_tokens_decoder.values()} - set(hidden)):
        twin.tokenize = _with_added(twin, known)
    return twin


def _with_added(twin: Any, known: Collection[str]) -> Callable[..., list[str]]:
    """Return what splits a text with a tokenizer in Python, which would take all of its added tokens for text, but for the `known`."""
    between = re.compile(f"({'|'.join(map(re.escape, sorted(known, key=len, reverse=True)))})")
    inner = twin.tokenize

    def tokenize(text: str, **settings: Any) -> list[str]:
        parts = filter(None, between.split(text))
        return [piece for part in parts for piece in ([part] if part in known else inner(part, **settings))]

    return tokenize


def _can_be_copied(tokenizer: Any) -> bool:
    """Return whether there is a backend that can be written down: one that splits in Python, as RoFormer's, cannot."""
    if not tokenizer.is_fast:
        return False
    try:
        tokenizer.backend_tokenizer.pre_tokenizer.__getstate__()
    except Exception:  # tokenizers raises no class of its own
        return False
    return True


def _in_one_piece(backend: Any, token: str) -> bool:
    """Return whether the model behind the tokenizer, which sees no added tokens, makes one piece of a text that is `token`."""
    number = backend.token_to_id(token)
    return any(piece.id == number for piece in backend.model.tokenize(token))


def _first_characters(tokens: Collection[str]) -> str:
    """Return a pattern of the first character of each of `tokens` where the others follow it."""
    rests: dict[str, list[str]] = {}
    for token in tokens:
        rests.setdefault(token[0], []).append(re.escape(token[1:]))
    return "|".join(f"{re.escape(first)}(?=(?:{'|'.join(rest)}))" for first, rest in rests.items())


class Encoder:
    """Encodes texts that mix what users typed with what a template or a setting writes: a control token counts unless it is `quoted`."""

    def __init__(self, tokenizer: Any, also: Collection[str] = ()) -> None:
        """Take the tokenizer's special tokens for control tokens, and the added tokens `also`."""
        self._tokenizer = tokenizer
        self._also = tuple(also)
        tokens = sorted(controls(tokenizer) | set(also), key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, tokens)) or "(?!)")
        self._marked = re.compile(f"{_OPEN}({self._tokens.pattern}){_CLOSE}|[{_OPEN}{_CLOSE}]|({self._tokens.pattern})")

    def quoted(self, text: str) -> str:
        """Return `text` with marks around each control token that is typed in it; a template may cut it up after that."""
        return self._tokens.sub(f"{_OPEN}\\g<0>{_CLOSE}", text.translate(_NONCHARACTERS))

    def control(self, text: str) -> re.Match[str] | None:
        """Return the first control token in a text that is not quoted."""
        return self._tokens.search(text)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of `text`, parts of which are quoted, without what a tokenizer adds around it."""
        if not _can_be_copied(self._tokenizer):
            return self._pieces(text)
        twin, numbers = self._aliased()
        shown = self._marked.sub(lambda found: f"{_OWN}{found[2]}" if found[2] else found[1] or "", text)
        return [numbers.get(token, token) for token in twin(shown, add_special_tokens=False, verbose=False)["input_ids"]]

    def _aliased(self) -> tuple[Any, dict[int, int]]:
        """Return a twin that knows each control token by another name, and the numbers that these stand for."""
        twins = _twins.setdefault(self._tokenizer, {})
        key = ("aliases", frozenset(self._also))
        if key not in twins:
            from tokenizers import AddedToken

            twin = _twin(self._tokenizer, controls(self._tokenizer) | set(self._also), ())
            numbers = {}
            known = {token.content: token for token in self._tokenizer.added_tokens_decoder.values()}
            for token in sorted(controls(self._tokenizer) | set(self._also)):
                own = known.get(token, AddedToken(token))
                alias = AddedToken(f"{_OWN}{token}", lstrip=own.lstrip, rstrip=own.rstrip, normalized=False, special=False)
                twin.backend_tokenizer.add_tokens([alias])
                numbers[twin.backend_tokenizer.token_to_id(alias.content)] = self._tokenizer.convert_tokens_to_ids(token)
            twins[key] = twin, numbers
        found: tuple[Any, dict[int, int]] = twins[key]
        return found

    def _pieces(self, text: str) -> list[int]:
        """Return the same of a tokenizer in Python, which encodes what stands between its added tokens piece by piece as well."""
        twin = plain(self._tokenizer, also=self._also)
        found: list[int] = []
        held = ""
        end = 0
        for mark in self._marked.finditer(text):
            held += text[end : mark.start()] + (mark[1] or "")
            end = mark.end()
            if mark[2]:
                found += [*self._bare(twin, held), self._tokenizer.convert_tokens_to_ids(mark[2])]
                held = ""
        return [*found, *self._bare(twin, held + text[end:])]

    def _bare(self, twin: Any, text: str) -> list[int]:
        return list(twin(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []
