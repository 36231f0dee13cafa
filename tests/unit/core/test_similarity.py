import numpy as np
import pytest

from components.core import similarity
from components.core.similarity import closest, shingles, words

ALPHABET = ["a", "b", "c", "d", "e", "!!", "漢", "字", "語", "。", "Ärger", "x y"]


def by_brute_force(texts: list[str], others: list[str], threshold: float) -> dict[int, tuple[int, float]]:
    found: dict[int, tuple[int, float]] = {}
    for place, one in enumerate(map(shingles, texts)):
        for twin, other in enumerate(map(shingles, others)):
            similarity = len(one & other) / len(one | other)
            if similarity >= threshold and similarity > found.get(place, (0, -1.0))[1]:
                found[place] = (twin, similarity)
    return found


def drawn(generator: np.random.Generator, texts: int) -> list[str]:
    def one() -> str:
        return (" " if generator.random() < 0.6 else "").join(generator.choice(ALPHABET, size=generator.integers(0, 9)))

    return [one() for _ in range(texts)]


@pytest.mark.parametrize("threshold", [0.31, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_the_search_finds_what_brute_force_finds_and_nothing_else(threshold):
    generator = np.random.default_rng(3)
    expected: dict[tuple[int, int], tuple[int, float]] = {}
    found: dict[tuple[int, int], tuple[int, float]] = {}
    for turn in range(20):
        texts, others = drawn(generator, 30), drawn(generator, 40)
        expected |= {(turn, place): twin for place, twin in by_brute_force(texts, others, threshold).items()}
        found |= {(turn, place): twin for place, twin in closest(texts, others, threshold).items()}

    assert len(expected) > 20
    assert found.keys() <= expected.keys()
    assert len(found) >= 0.97 * len(expected)
    assert all(similarity >= threshold for _, similarity in found.values())
    assert sum(found[key] == expected[key] for key in found) >= 0.97 * len(found)


def test_case_and_punctuation_make_no_difference():
    assert shingles("Wi-Fi, slow!") == shingles("wi fi SLOW")
    assert words("Wi-Fi, slow!") == ["wi", "fi", "slow"]
    assert closest(["Wi-Fi, slow!"], ["router", "wi fi SLOW"], 0.8) == {0: (1, 1.0)}


def test_of_equally_similar_texts_the_first_is_named():
    assert closest(["a b c"], ["a b c d", "a b c e"], 0.5) == {0: (0, 5 / 7)}


@pytest.mark.parametrize(("texts", "others"), [([], ["a"]), (["a"], []), ([], [])])
def test_nothing_is_like_nothing(texts, others):
    assert closest(texts, others, 0.8) == {}


def test_texts_without_a_word_are_alike_when_they_are_the_same():
    assert closest(["!!!", "", "?"], ["?", ""], 0.8) == {1: (1, 1.0), 2: (0, 1.0)}


def test_in_a_crowd_of_near_copies_every_one_still_finds_a_twin():
    template = "order number {} was shipped to the customer on monday and will arrive on friday thank you"
    texts, others = ([template.format(number) for number in numbers] for numbers in (range(300), range(1000, 4000)))

    assert len(closest(texts, others, 0.8)) == len(texts)


def test_a_twin_is_found_behind_a_crowd_of_texts_from_the_same_template():
    """The crowd is less alike than the threshold, and more so than chance: all of it are candidates."""
    opening = "order number {} was shipped to the customer on monday and will arrive on friday thank you for buying at our shop {}"
    text = opening.format("one two three", "with kind regards")
    others = [opening.format(f"a{number} b{number} c{number}", f"d{number}") for number in range(600)]
    crowd = [len(shingles(text) & shingles(other)) / len(shingles(text) | shingles(other)) for other in others]
    twin = text.replace("regards", "greetings")

    assert 0.6 < min(crowd) <= max(crowd) < 0.8
    assert closest([text], [*others, twin], 0.8)[0][0] == 600


def test_in_a_crowd_of_near_copies_the_closest_is_named():
    template = "order number {} was shipped to the customer on monday and will arrive on friday thank you"
    others = [template.format(number) for number in range(1000)]

    assert closest([template.format(999)], others, 0.8) == {0: (999, 1.0)}


def test_texts_that_share_too_few_shingles_are_not_signed(monkeypatch):
    signed, signatures = [], similarity._signatures
    monkeypatch.setattr(similarity, "_signatures", lambda shingled: signatures(signed.append(one) or one for one in shingled))
    texts, others = ["the router drops the line"], ["no dial tone at all", "The router drops the line!", "the router is new"]

    assert closest(texts, others, 0.8) == {0: (1, 1.0)}
    assert signed == [shingles(texts[0]), shingles(others[1])]
