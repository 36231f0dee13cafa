import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.artifacts.behaviour import Behaviour, Case
from components.artifacts.predictions import ModelOutput
from components.core.errors import BadParams
from components.core.text import normalise
from components.evaluation.behaviour import PADDING, PERTURBATIONS, UserCases, evaluate_cases, make_cases, read_cases
from components.evaluation.behaviour.perturbations import replace_words
from components.gates.behaviour import AtMost, Params
from components.gates.support.evidence_settings import PERTURBED

EXAMPLE = Path(__file__).parents[3] / "examples/diagnosis"
LABELS = ("billing", "network")
ROWS = pd.DataFrame(
    {
        "id": [f"t{number:02d}" for number in range(40)],
        "group": [f"g{number // 4}" for number in range(40)],
        "text": [f"My router number {number} is Ménière's - broken" for number in range(40)],
    }
)


class Reader:
    """Answers by the share of letters that are an `e`, and counts its calls."""

    def __init__(self, labels: tuple[str, ...] = LABELS) -> None:
        self.labels, self.calls = labels, 0

    def answer(self, texts: Sequence[str]) -> ModelOutput:
        self.calls += 1
        share = np.array([text.count("e") / max(len(text), 1) for text in texts])
        others = np.outer(1 - share, np.ones(len(self.labels) - 1) / (len(self.labels) - 1))
        predicted = [self.labels[0] if one > 0.2 else self.labels[1] for one in share]
        return ModelOutput(predicted, np.column_stack([share, others]), self.labels)


def test_gate_settings_match_the_perturbations() -> None:
    assert set(PERTURBATIONS) == set(PERTURBED) != set()
    assert set(AtMost.model_fields) == {*PERTURBED, "invariance", "directional", "minimum_functionality"}
    assert Params().padding == PADDING


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("typos", "Cat on", {"Cat on"}),
        ("typos", "tree", {"tere", "tee", "ttree", "trree", "treee", "tre"}),
        ("case", "Cholera", {"CHOLERA", "cholera"}),
        ("case", "123", {"123"}),
        ("width", "ab", {"ａｂ"}),
        ("width", "12 é", {"１２ é"}),
        ("width", "éü", {"éü"}),
        ("diacritics", "Ménière", {"Meniere"}),
        ("diacritics", "Cholera", {"Cholera"}),
        ("punctuation", "a.", {"a"}),
        ("punctuation", "it's", {"it's.", "it’s"}),
        ("padding", "a", {"Please note: a", "a (as noted)", "a Thank you."}),
    ],
)
def test_perturbation_changes_the_text_as_named(kind: str, text: str, expected: set[str]) -> None:
    assert {PERTURBATIONS[kind](text, Random(seed)) for seed in range(200)} <= expected
    assert PERTURBATIONS[kind](text, Random(1)) == PERTURBATIONS[kind](text, Random(1))


@given(st.text(max_size=40), st.integers(0, 100))
def test_perturbations_accept_any_text(text: str, seed: int) -> None:
    for change in PERTURBATIONS.values():
        assert isinstance(change(text, Random(seed)), str)


@given(st.text(alphabet="abcdefgh ", min_size=1, max_size=40), st.integers(0, 100))
def test_typo_changes_one_word(text: str, seed: int) -> None:
    changed = PERTURBATIONS["typos"](text, Random(seed))
    differing = [pair for pair in zip(text.split(" "), changed.split(" "), strict=True) if pair[0] != pair[1]]
    assert len(differing) <= 1
    assert all(abs(len(old) - len(new)) <= 1 and old[0] == new[0] for old, new in differing)


def test_nfkc_restores_wide_letters() -> None:
    wide = PERTURBATIONS["width"]("router", Random(0))

    assert normalise(wide, "NFKC") == "router"
    assert normalise(wide, "NFC") == wide != "router"


def test_whole_words_are_swapped() -> None:
    swap = replace_words((("left", "right"), ("right", "left"), ("a.b", "c")))

    assert swap("left right leftover, left (right) axb a.b", Random(0)) == "right left leftover, right (left) axb c"


def test_same_seed_gives_the_same_cases() -> None:
    first, _ = make_cases(ROWS, count=8, seed=3)
    again, _ = make_cases(ROWS.sample(frac=1, random_state=5), count=8, seed=3)
    other, _ = make_cases(ROWS, count=8, seed=4)

    assert first == again != other
    assert {case.kind: sum(other.kind == case.kind for other in first) for case in first} == dict.fromkeys(PERTURBATIONS, 8)
    assert all(case.changed != case.text for case in first)


def test_cases_use_every_group_before_repeating() -> None:
    cases, _ = make_cases(ROWS, kinds=["typos"], count=15)

    assert len({case.group for case in cases[:10]}) == 10
    assert len({case.text for case in cases}) == 15


def test_removed_rows_do_not_change_a_case() -> None:
    whole, _ = make_cases(ROWS, kinds=["typos"], count=40)
    half, _ = make_cases(ROWS.iloc[:20], kinds=["typos"], count=40)

    assert {case.text: case.changed for case in half}.items() <= {case.text: case.changed for case in whole}.items()


def test_perturbation_without_cases_is_noted() -> None:
    written = UserCases.model_validate({"invariance": [{"name": "side", "replace": [["left", "right"]]}]})
    cases, notes = make_cases(ROWS.assign(text="123"), written, kinds=["case", "padding"], count=3)

    assert [case.kind for case in cases] == ["padding"] * 3
    assert notes == ["case: no test row can be perturbed", "side: no test row contains 'left'"]
    assert make_cases(ROWS.iloc[:0])[0] == []


def write(folder: Path, text: str) -> Path:
    path = folder / "behaviour.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_user_cases_become_cases_of_their_type(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
invariance: [{text: a, changed: b}, {name: words, replace: [[router, modem]]}]
directional: [{text: a, changed: ae, label: billing, must: rise, by: 0.1}]
minimum_functionality: [{text: eee, label: billing}]
""",
    )
    cases, notes = make_cases(ROWS, read_cases(path, LABELS), kinds=[], count=2)

    assert [(case.kind, case.name, case.text, case.changed) for case in cases if case.name != "words"] == [
        ("invariance", "invariance case 1", "a", "b"),
        ("directional", "directional case 1", "a", "ae"),
        ("minimum_functionality", "minimum_functionality case 1", None, "eee"),
    ]
    words = [case for case in cases if case.name == "words"]
    assert len(words) == 2
    assert all("router" in str(case.text) and "modem" in case.changed for case in words)
    assert notes == []


@pytest.mark.parametrize("text", ["", "# nothing\n", "invariance: []\n", "invariance:\ndirectional: []\n", "{}"])
def test_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadParams, match=r'behaviour.yaml: no cases; expected a list under invariance, .*cases: ""'):
        read_cases(write(tmp_path, text))


def test_all_faults_are_reported_with_case_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
invariances: []
invariance: [{text: a}, {text: a, changed: b, txt: c}, 7]
directional:
  - {text: a, changed: b, label: biling, must: rise}
  - {text: a, changed: b, label: billing, must: jump}
  - {text: a, changed: b, label: billing, must: rise, by: 2}
minimum_functionality: {text: a}
""",
    )
    with pytest.raises(BadParams) as error:
        read_cases(path, LABELS)

    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert [line.removeprefix(f"{path}: ") for line in lines] == [
        "invariances is not a type of case; did you mean 'invariance'?",
        "minimum_functionality: expected a list of cases, found dict",
        "invariance case 1: expected `text` and `changed`, or `replace` alone, found a mapping with text",
        "invariance case 2.txt is not a setting; did you mean 'text'?",
        "invariance case 3: expected a mapping with name, text, changed, replace, found int",
        "directional case 1: unknown label 'biling'; did you mean 'billing'?",
        "directional case 2.must: input should be 'rise', 'fall', 'not rise' or 'not fall', found 'jump'",
        "directional case 3.by: input should be less than or equal to 1, found 2",
    ]


@pytest.mark.parametrize(("text", "error"), [("[1]", "expected a mapping"), ("a: [", "is not YAML"), ("invariance: x", "expected a list")])
def test_invalid_file_is_refused(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(BadParams, match=error):
        read_cases(write(tmp_path, text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"none.yaml \(gates.behaviour.cases\) cannot be read"):
        read_cases(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["typo"]}, "did you mean 'typos'"),
        ({"padding": ["please"]}, "must contain {text}"),
        ({"at_most": {"typo": 0.1}}, "Extra"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Params.model_validate(settings)


def directional(must: str, by: float, text: str = "aaaa", changed: str = "eaaa") -> bool:
    """Return whether the case fails if the probability of billing goes from 0 to 0.25."""
    case = Case(kind="directional", name="d", group="d", text=text, changed=changed, label="billing", must=must, by=by)
    (tried,) = evaluate_cases([case], Reader()).tried
    return tried.candidate.failed


def test_probability_must_move_as_required() -> None:
    assert not directional("rise", 0.25)
    assert directional("rise", 0.26)
    assert directional("fall", 0.0)
    assert directional("rise", 0.0, changed="aaab")  # unchanged is not a rise
    assert not directional("not rise", 0.25)
    assert directional("not rise", 0.2)
    assert not directional("not fall", 0.0)
    assert directional("not fall", 0.2, text="eaaa", changed="aaaa")
    assert not directional("fall", 0.2, text="eaaa", changed="aaaa")


def test_both_versions_answer_every_text_once() -> None:
    cases = [
        Case(kind="typos", name="typos", group="g", text="aaaa", changed="aaa"),
        Case(kind="typos", name="typos", group="g", text="aaaa", changed="ee"),
        Case(kind="minimum_functionality", name="m", group="m", text=None, changed="ee", label="billing"),
    ]
    candidate, champion = Reader(), Reader(("account", "network"))

    seen = evaluate_cases(cases, candidate, champion, notes=["a note"])

    assert candidate.calls == champion.calls == 1
    assert [one.candidate.failed for one in seen.tried] == [False, True, False]
    assert seen.tried[2].champion is None  # it does not have the label, so the case does not count
    assert seen.tried[1].champion is not None
    assert seen.tried[1].champion.after == "account"
    assert seen.notes == ("a note",)
    assert Behaviour.model_validate_json(seen.model_dump_json()) == seen


def test_unknown_label_is_reported_with_its_case_number() -> None:
    unknown = {"name": "named by the user", "text": "e", "label": "biling"}
    cases, _ = make_cases(ROWS, UserCases.model_validate({"minimum_functionality": [{**unknown, "label": "billing"}, unknown]}), kinds=[])

    with pytest.raises(BadParams, match="cases, minimum_functionality case 2: unknown label 'biling'; did you mean 'billing'"):
        evaluate_cases(cases, Reader())


def test_no_cases_need_no_answers() -> None:
    reader = Reader()

    assert evaluate_cases([], reader).tried == ()
    assert reader.calls == 0


def test_example_cases_match_the_example() -> None:
    rows = pd.read_csv(EXAMPLE / "diagnosis.csv", dtype=str)
    written = read_cases(EXAMPLE / "behaviour.yaml", sorted(set(rows["label"])))
    cases, notes = make_cases(rows, written)

    assert written.invariance
    assert written.directional
    assert written.minimum_functionality
    assert notes == []
    assert sum(case.name == "side" for case in cases) == 100
    assert json.dumps([case.model_dump() for case in cases])
