"""The chat template of a tokenizer: splits a rendered conversation into prompt, answer and end.

Templates differ in the text before an answer (`<think>`), after it, and in earlier turns. This text is found by rendering: the answer is
replaced by a placeholder character, and the template output on both sides of it is the frame.
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
"""The fixed date for templates, so that data are encoded the same every day; Llama 3's template uses it without a clock."""

PLAIN = (
    "{% for message in messages %}{{ '### ' + message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\\n' }}{% endif %}"
)
"""The template for a tokenizer without a chat template."""

_ANSWER, _PROMPT = "\ufdd3", "\ufdd4"  # placeholders (noncharacters) for the answer and the turns before it
_MIN_END = 4  # characters of an end text; shorter ones, e.g. a quotation mark, also occur in answers
_CLOCK = "strftime_now"
_SIGN = re.compile(r"[^\w\s]")  # in markers such as <|im_end|>, not in added words or line breaks
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\b")
_DIRECTIVES = [*(f"%{letter}" for letter in "aAwdbBmyYHIMSfpjUWcxXFTDReGuVCnthklPzZ"), *(f"%-{letter}" for letter in "dmyHIMSjUWe")]


def frozen(template: str) -> str:
    """Return the template with the current date fixed to `TODAY`; a template without a date is unchanged.

    A macro replaces transformers' clock. It is part of the template, so it is saved with the model and other servers render the same date.
    Raise BadModel if the template uses random values.
    """
    if _RANDOM.search(template):
        raise BadModel("the tokenizer's chat template uses random values, so encoding is not reproducible; choose another base.model")
    if _CLOCK not in template or f"macro {_CLOCK}" in template:
        return template
    filters = "".join(f"|replace({directive!r},{TODAY.strftime(directive)!r})" for directive in [*_DIRECTIVES, "%%"])
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}\n{template}"


@dataclass(frozen=True)
class Turn:
    """An answer in the template: the text before it, the answer with its end, and whether the template writes an end.

    User text in both is quoted; see `Encoder`.
    """

    before: str
    learnt: str
    ended: bool


class Template:
    """The chat template of a tokenizer. `stops` are the token ids that end an answer; `stop` is the end text if it is not a token."""

    def __init__(self, tokenizer: Any) -> None:
        """Find the frame around an answer; raise BadModel if the template does not render the answer, or fails."""
        self._tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        frame, after = self._frame()
        special = controls(tokenizer)
        names = {token.content for token in tokenizer.added_tokens_decoder.values()} - special
        self.encoder = Encoder(tokenizer, sorted(name for name in names if name in frame and _SIGN.search(name)))
        self._mark, _ = self._end(after)
        ending = self.encoder.control(self._mark)
        self.stops: tuple[int, ...] = (int(tokenizer.convert_tokens_to_ids(ending[0])),) if ending else ()
        self._tail = (self._mark[: ending.start()] if ending else self._mark).strip()
        self.stop = self._tail if len(self._tail) >= _MIN_END else ""

    def question(self, messages: Sequence[Message]) -> str:
        """Render a conversation up to the start of the answer."""
        before, *_ = self._around(self._quoted(messages))
        return before

    def turn(self, messages: Sequence[Message], answer: str) -> Turn:
        """Return the learnt part of `answer` to `messages`; surrounding spaces are kept only if the template keeps them."""
        quoted_messages, quoted_answer = self._quoted(messages), self.encoder.quoted(answer)
        before, blanks, after, head = self._around(quoted_messages)
        rendered = self._render([*quoted_messages, {"role": "assistant", "content": quoted_answer}])
        framed = rendered.startswith(head) and rendered.endswith(after)
        body = rendered[len(head) : len(rendered) - len(after)] if framed else ""
        if body.strip() != quoted_answer.strip():  # a template may rewrite an answer, e.g. remove thoughts
            body = quoted_answer
        end, ended = self._end(after)
        return Turn(before, blanks + body + end, ended)

    def answer(self, text: str) -> str:
        """Return generated text without the end text of the template."""
        text = text.partition(self.stop)[0] if self.stop else text.strip()
        return text.strip().removesuffix(self._tail).strip() if self._tail else text.strip()

    def _end(self, after: str) -> tuple[str, bool]:
        """Return the end of an answer from the text after it, and whether it is distinguishable from answer text."""
        if ending := self.encoder.control(after):
            return after[: ending.end()], True
        mark = after.rstrip()
        return mark, len(mark.strip()) >= _MIN_END

    def _around(self, messages: Sequence[Message]) -> tuple[str, str, str, str]:
        """Return the text before an answer to `messages`, the spaces encoded with the answer, the text after it, and the head.

        The head of the full conversation may differ from the generation prompt.
        """
        head, placeholder, after = self._render([*messages, {"role": "assistant", "content": _ANSWER}]).rpartition(_ANSWER)
        if not placeholder:
            raise BadModel("the tokenizer's chat template does not render the assistant's answer; choose another base.model")
        prompt = self._render(messages, prompt=True)
        before = head if head.startswith(prompt) else self._with_prompt(messages, prompt, head)
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        blanks = lead[len(lead.rstrip(" ")) :]  # tokenizers join a space with the word after it
        return before.removesuffix(blanks), blanks, after, head

    def _with_prompt(self, messages: Sequence[Message], prompt: str, head: str) -> str:
        """Return `head` with the turns as in the generation prompt `prompt`.

        Some templates, e.g. Mistral's, render the system turn only in the last user turn without an answer.
        """
        open_turn = [*messages[:-1], {**messages[-1], "content": _PROMPT}]
        _, in_prompt, call = self._render(open_turn, prompt=True).rpartition(_PROMPT)
        answered = self._render([*open_turn, {"role": "assistant", "content": _ANSWER}]).rpartition(_ANSWER)[0]
        _, in_head, frame = answered.rpartition(_PROMPT)
        return prompt.removesuffix(call) + frame if in_prompt and in_head and prompt.endswith(call) else head

    def _frame(self) -> tuple[str, str]:
        """Return the template text around turns, without that between generation prompt and answer; and the text after an answer."""
        turns = [{"role": role, "content": _PROMPT} for role in ("system", "user")]
        try:
            before, blanks, after, _ = self._around(turns)
        except BadData:  # the template rejects system turns
            turns = turns[1:]
            before, blanks, after, _ = self._around(turns)
        prompt = self._render(turns, prompt=True)
        return (prompt if (before + blanks).startswith(prompt) else before) + after, after

    def _quoted(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [{name: self._quoted_value(value) for name, value in message.items()} for message in messages]

    def _quoted_value(self, value: Any) -> Any:
        """Quote all texts in a message field, including nested lists and objects."""
        if isinstance(value, str):
            return self.encoder.quoted(value)
        if isinstance(value, Mapping):
            return {name: self._quoted_value(item) for name, item in value.items()}
        return [self._quoted_value(item) for item in value] if isinstance(value, list) else value

    def _render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
        except TemplateError as error:
            shown = " | ".join(f"{message['role']}: {message['content']}" for message in messages if message["content"] != _ANSWER)[:200]
            raise BadData(f"the tokenizer's chat template rejects a conversation: {error}: {shown!r}") from error
