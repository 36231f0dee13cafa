"""Words of texts, in scripts with and without spaces."""

import pytest

from components.core.text import first_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is late.", ["It", "is", "late."]),
        ("很好用", ["很", "好", "用"]),
        ("iPhone 很好", ["iPhone", "很", "好"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_characters_of_unspaced_scripts_are_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(("text", "start"), [("It is  late.", "It is"), ("很好用", "很好"), ("one", "one"), ("", "")])
def test_first_words_are_the_start_of_the_text(text: str, start: str) -> None:
    assert first_words(text, 2) == start
