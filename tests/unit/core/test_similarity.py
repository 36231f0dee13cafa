import numpy as np
import pytest

from components.core import similarity
from components.core.similarity import closest, shingles, words

ALPHABET = ["a", "b", "c", "d", "e", "!!", "漢", "字", "語", "。", "Ärger", "x y"]


def by_brute_force(texts: list[str], others: list[str], threshold: float) -> dict[int, tuple[int, float]]:
    matches: dict[int, tuple[int, float]] = {}
    for row, text in enumerate(map(shingles, texts)):
        for twin, other in enumerate(map(shingles, others)):
            similarity = len(text & other) / len(text | other)
            if similarity >= threshold and similarity > matches.get(row, (0, -1.0))[1]:
                matches[row] = (twin, similarity)
    return matches


def drawn(generator: np.random.Generator, texts: int) -> list[str]:
    def text() -> str:
        return (" " if generator.random() < 0.6 else "").join(generator.choice(ALPHABET, size=generator.integers(0, 9)))

    return [text() for _ in range(texts)]


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.31, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_search_agrees_with_brute_force(threshold):
    generator = np.random.default_rng(3)
    expected: dict[tuple[int, int], tuple[int, float]] = {}
    matches: dict[tuple[int, int], tuple[int, float]] = {}
    for turn in range(20):
        texts, others = drawn(generator, 30), drawn(generator, 40)
        expected |= {(turn, row): twin for row, twin in by_brute_force(texts, others, threshold).items()}
        matches |= {(turn, row): twin for row, twin in closest(texts, others, threshold).items()}

    assert len(expected) > 20
    assert matches.keys() <= expected.keys()
    assert len(matches) >= 0.97 * len(expected)
    assert all(similarity >= threshold for _, similarity in matches.values())
    assert sum(matches[key] == expected[key] for key in matches) >= 0.97 * len(matches)


def test_case_and_punctuation_do_not_matter():
    assert shingles("Wi-Fi, slow!") == shingles("wi fi SLOW")
    assert words("Wi-Fi, slow!") == ["wi", "fi", "slow"]
    assert closest(["Wi-Fi, slow!"], ["router", "wi fi SLOW"], 0.8) == {0: (1, 1.0)}


def test_first_of_equally_similar_texts_wins():
    assert closest(["a b c"], ["a b c d", "a b c e"], 0.5) == {0: (0, 5 / 7)}


@pytest.mark.parametrize(("texts", "others"), [([], ["a"]), (["a"], []), ([], [])])
def test_empty_input_has_no_matches(texts, others):
    assert closest(texts, others, 0.8) == {}


def test_texts_without_words_match_if_equal():
    assert closest(["!!!", "", "?"], ["?", ""], 0.8) == {1: (1, 1.0), 2: (0, 1.0)}


@pytest.mark.slow
def test_every_text_of_many_near_copies_has_a_match():
    template = "order number {} was shipped to the customer on monday and will arrive on friday thank you"
    texts, others = ([template.format(number) for number in numbers] for numbers in (range(300), range(1000, 4000)))

    assert len(closest(texts, others, 0.8)) == len(texts)


def test_match_is_found_among_many_texts_of_a_template():
    """The other texts are below the threshold but similar enough to be candidates."""
    opening = "order number {} was shipped to the customer on monday and will arrive on friday thank you for buying at our shop {}"
    text = opening.format("one two three", "with kind regards")
    others = [opening.format(f"a{number} b{number} c{number}", f"d{number}") for number in range(600)]
    crowd = [len(shingles(text) & shingles(other)) / len(shingles(text) | shingles(other)) for other in others]
    twin = text.replace("regards", "greetings")

    assert 0.6 < min(crowd) <= max(crowd) < 0.8
    assert closest([text], [*others, twin], 0.8)[0][0] == 600


def test_closest_of_many_near_copies_wins():
    template = "order number {} was shipped to the customer on monday and will arrive on friday thank you"
    others = [template.format(number) for number in range(1000)]

    assert closest([template.format(999)], others, 0.8) == {0: (999, 1.0)}


def test_texts_with_too_few_common_shingles_are_not_signed(monkeypatch):
    signed, signatures = [], similarity._signatures
    monkeypatch.setattr(similarity, "_signatures", lambda shingled: signatures(signed.append(text) or text for text in shingled))
    texts, others = ["the router drops the line"], ["no dial tone at all", "The router drops the line!", "the router is new"]

    assert closest(texts, others, 0.8) == {0: (1, 1.0)}
    assert signed == [shingles(texts[0]), shingles(others[1])]
