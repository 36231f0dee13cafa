"""A tokenizer's chat template: what it writes around an answer, and how a conversation becomes tokens; no torch.

Templates differ in what they write before an answer (`<think>`), behind it, and in earlier turns. None of that is read from the template
itself: an answer is replaced by a character that no text has, and what the template writes on both sides of it is the frame.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.core.errors import BadData, BadModel
from components.model.support.control_tokens import Encoder, controls

Message = Mapping[str, str]

TODAY = datetime.datetime(2024, 7, 26)
"""What a template is told is today: data would else be encoded otherwise every day. Llama 3's names this date where it has no clock."""

PLAIN = (
    "{% for message in messages %}{{ '### ' + message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\\n' }}{% endif %}"
)
"""How a conversation is written for a tokenizer that has no chat template of its own."""

_HOLE, _OTHER = "\ufdd3", "\ufdd4"  # noncharacters: in place of the answer, and of what stands before it
_LEAST = 4  # characters of a text that ends an answer; a shorter one, as a quotation mark, stands in answers as well
_CLOCK = "strftime_now"
_SIGN = re.compile(r"[^\w\s]")  # a mark has one, as <|im_end|>; an added word or line break is none
_CHANCE = re.compile(r"\|\s*random\b|\blipsum\b")
_DIRECTIVES = [*(f"%{letter}" for letter in "aAwdbBmyYHIMSfpjUWcxXFTDReGuVCnthklPzZ"), *(f"%-{letter}" for letter in "dmyHIMSjUWe")]


def frozen(template: str) -> str:
    """Return a template for which today is always `TODAY`, wherever it is written; one that asks for no date stays as it is.

    A macro takes the place of transformers' clock. It stands in the template, so that it is saved with the model, and other servers that
    load the model write the same date.

    Raises:
        BadModel: the template draws at random.
    """
    if _CHANCE.search(template):
        raise BadModel("the tokenizer's chat template draws at random, so that the same data would be encoded otherwise each time")
    if _CLOCK not in template or f"macro {_CLOCK}" in template:
        return template
    filters = "".join(f"|replace({directive!r},{TODAY.strftime(directive)!r})" for directive in [*_DIRECTIVES, "%%"])
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}\n{template}"


@dataclass(frozen=True)
class Turn:
    """An answer as the template writes it: what stands before it, the answer with its end, and whether the template writes an end.

    Both are texts with what users typed quoted; see `Encoder`.
    """

    before: str
    learnt: str
    ended: bool


class Template:
    """The chat template of a tokenizer. `stops` are the tokens that it ends an answer with, `stop` the text that does so without one."""

    def __init__(self, tokenizer: Any) -> None:
        """Ask the template what it writes around an answer.

        Raises:
            BadModel: it writes no answer, or fails.
        """
        self._tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        frame, behind = self._frame()
        special = controls(tokenizer)
        names = {token.content for token in tokenizer.added_tokens_decoder.values()} - special
        self.encoder = Encoder(tokenizer, sorted(name for name in names if name in frame and _SIGN.search(name)))
        self._mark, _ = self._end(behind)
        ending = self.encoder.control(self._mark)
        self.stops: tuple[int, ...] = (int(tokenizer.convert_tokens_to_ids(ending[0])),) if ending else ()
        self._tail = (self._mark[: ending.start()] if ending else self._mark).strip()
        self.stop = self._tail if len(self._tail) >= _LEAST else ""

    def question(self, messages: Sequence[Message]) -> str:
        """Return a conversation up to where the answer begins."""
        before, *_ = self._around(self._quoted(messages))
        return before

    def turn(self, messages: Sequence[Message], answer: str) -> Turn:
        """Return what is learnt of an `answer` to `messages`: the answer, with blanks at its ends only where the template leaves them."""
        given, quoted = self._quoted(messages), self.encoder.quoted(answer)
        before, blanks, behind, head = self._around(given)
        whole = self._render([*given, {"role": "assistant", "content": quoted}])
        written = whole[len(head) : len(whole) - len(behind)] if whole.startswith(head) and whole.endswith(behind) else ""
        body = written if written.strip() == quoted.strip() else quoted  # a template may rewrite an answer, as take thoughts out of it
        end, ended = self._end(behind)
        return Turn(before, blanks + body + end, ended)

    def answer(self, text: str) -> str:
        """Return what the model wrote without the end that the template writes."""
        text = text.partition(self.stop)[0] if self.stop else text.strip()
        return text.strip().removesuffix(self._tail).strip() if self._tail else text.strip()

    def _end(self, behind: str) -> tuple[str, bool]:
        """Return what ends an answer of what stands behind it, and whether that alone can be told from an answer."""
        if ending := self.encoder.control(behind):
            return behind[: ending.end()], True
        mark = behind.rstrip()
        return mark, len(mark.strip()) >= _LEAST

    def _around(self, messages: Sequence[Message]) -> tuple[str, str, str, str]:
        """Return what stands before an answer to `messages`, the blanks that are written with the answer, and what stands behind it.

        The last is the head of the whole conversation, which may differ from what stands before the answer where it is asked for.
        """
        head, hole, behind = self._render([*messages, {"role": "assistant", "content": _HOLE}]).rpartition(_HOLE)
        if not hole:
            raise BadModel("the tokenizer's chat template does not write the assistant's answer; choose another base.model")
        asked = self._render(messages, asking=True)
        before = head if head.startswith(asked) else self._as_asked(messages, asked, head)
        lead = before.removeprefix(asked) if before.startswith(asked) else ""
        blanks = lead[len(lead.rstrip(" ")) :]  # a tokenizer counts a blank to the word behind it
        return before.removesuffix(blanks), blanks, behind, head

    def _as_asked(self, messages: Sequence[Message], asked: str, head: str) -> str:
        """Return `head` with all up to the last turn's end as it is when an answer is `asked` for.

        Some templates, as Mistral's, write the system's turn into the last turn if that is the user's, and nowhere if an answer follows.
        """
        open_turn = [*messages[:-1], {**messages[-1], "content": _OTHER}]
        _, one, call = self._render(open_turn, asking=True).rpartition(_OTHER)
        answered = self._render([*open_turn, {"role": "assistant", "content": _HOLE}]).rpartition(_HOLE)[0]
        _, other, frame = answered.rpartition(_OTHER)
        return asked.removesuffix(call) + frame if one and other and asked.endswith(call) else head

    def _frame(self) -> tuple[str, str]:
        """Return what the template writes itself: around turns, but not between the call for an answer and the answer; and behind one."""
        talk = [{"role": role, "content": _OTHER} for role in ("system", "user")]
        try:
            before, blanks, behind, _ = self._around(talk)
        except BadData:  # it refuses the system's turn
            talk = talk[1:]
            before, blanks, behind, _ = self._around(talk)
        asked = self._render(talk, asking=True)
        return (asked if (before + blanks).startswith(asked) else before) + behind, behind

    def _quoted(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [{name: self._typed(value) for name, value in message.items()} for message in messages]

    def _typed(self, value: Any) -> Any:
        """Return a message's field, which may hold lists and objects, with all texts in it quoted."""
        if isinstance(value, str):
            return self.encoder.quoted(value)
        if isinstance(value, Mapping):
            return {name: self._typed(each) for name, each in value.items()}
        return [self._typed(each) for each in value] if isinstance(value, list) else value

    def _render(self, messages: Sequence[Message], *, asking: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asking))
        except TemplateError as error:
            told = " | ".join(f"{message['role']}: {message['content']}" for message in messages if message["content"] != _HOLE)[:200]
            raise BadData(f"the tokenizer's chat template refuses a conversation: {error}: {told!r}") from error
