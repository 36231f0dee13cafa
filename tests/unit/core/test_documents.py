"""Strict YAML and JSON: duplicate keys, alias bombs, and errors with line numbers."""

import re
import time
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml as dvc_writes
from dvc.utils.serialize import parse_yaml as dvc_reads

from components.core.documents import parse_json, parse_yaml, read_yaml
from components.core.errors import BadParams

ROOT = Path(__file__).parents[3]
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 9)
)


def error_of(text: str | bytes) -> str:
    with pytest.raises(BadParams) as caught:
        parse_yaml(text, "some.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gates: 1\nname: x\ngates: 2\n", "'gates' is in line 1 and again in line 3"),
        ("gates:\n  floor: 1\n  floor: 2\n", "'floor' is in line 2 and again in line 3"),
        ("- a\n- {b: 1, b: 2}\n", "'b' is in line 2 and again in line 2"),
        ("1: a\n01: b\n", "'1' is in line 1 and again in line 2, written '01'"),
        ("yes: a\ntrue: b\n", "'yes' is in line 1 and again in line 2, written 'true'"),
        ("a: &a {q: 1}\nb: {<<: *a, <<: *a}\n", "'<<' is in line 2 and again in line 2"),
        ("'a': 1\na: 2\n", "'a' is in line 1 and again in line 2"),
    ],
)
def test_duplicate_key_is_reported_with_both_lines(text: str, message: str) -> None:
    assert error_of(text) == f"some.yaml: the key {message}; keep one of them"


def test_all_duplicate_keys_are_reported_at_once() -> None:
    assert len(error_of("a: 1\nb: 1\na: 2\nb: 2\n").splitlines()) == 2


def test_merged_key_may_be_overridden() -> None:
    merged = parse_yaml("a: &a {q: 1, r: 2}\nb: &b {<<: *a, q: 3}\nc: {<<: [*b, *a], r: 4}\n", "some.yaml")

    assert merged == {"a": {"q": 1, "r": 2}, "b": {"q": 3, "r": 2}, "c": {"q": 3, "r": 4}}


@pytest.mark.parametrize("value", ["1e-4", "2E+5", "-1e5", "+3e0", ".5e3", "1.e2"])
def test_numbers_are_read_as_in_dvc(value: str) -> None:
    assert parse_yaml(f"rate: {value}", "some.yaml") == {"rate": float(value)}


@pytest.mark.parametrize(
    "value", ["010", "08", "-07", "1_000", "0o17", "0x1f", "1:30", "12:30:45.5", ".5", "5.", "1_0.5", "-.inf", "1.2.3", "+5", "0", "~"]
)
def test_plain_values_equal_those_of_dvc(value: str) -> None:
    assert parse_yaml(f"a: {value}", "some.yaml") == dvc_reads(f"a: {value}", "some.yaml")


@pytest.mark.parametrize("value", ["yes", "no", "on", "off", "true", "FALSE", "1:30", "010", "1e5", "null", "2026-01-01", "", "~"])
def test_dvc_output_round_trips(value: str) -> None:
    assert parse_yaml(dvc_writes({"a": [value]}), "dvc.lock", as_dvc=True) == {"a": [value]}


def test_dvc_output_has_no_duplicate_keys() -> None:
    assert parse_yaml(dvc_writes({"no": 1, "off": 2}), "dvc.lock", as_dvc=True) == {"no": 1, "off": 2}


def test_yes_and_no_are_booleans() -> None:
    assert parse_yaml("[yes, no, on, off, true]", "some.yaml") == [True, False, True, False, True]


def test_all_values_can_be_read_as_texts() -> None:
    values = parse_yaml("a: no\nb: [1.0, ~, 2026-01-01]\n1: &x {c: yes}\nd: *x", "README.md", texts=True)

    assert values == {"a": "no", "b": ["1.0", "~", "2026-01-01"], "1": {"c": "yes"}, "d": {"c": "yes"}}


def test_git_conflict_markers_are_reported() -> None:
    assert "line 2: it contains git conflict markers" in error_of("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> other\n")


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x07"])
def test_control_character_is_reported_with_its_line(character: str) -> None:
    message = f"some.yaml is not YAML: line 2 contains the control character 0x{ord(character):02x}"

    assert error_of(f"ä: 1\nb: {character}\n").startswith(message)


@pytest.mark.parametrize("value", ["e5", "1e", "12e3x", "'1e5'"])
def test_other_texts_stay_texts(value: str) -> None:
    assert parse_yaml(f"name: {value}", "some.yaml") == {"name": value.strip("'")}


@pytest.mark.parametrize("text", [BOMB, "- &a [x, x]\n" + "- *a\n" * 6_000, "b: &a {c: *a}"])
def test_alias_bomb_is_rejected(text: str) -> None:
    start = time.process_time()
    assert "line " in error_of(text)
    assert time.process_time() - start < 2


@pytest.mark.slow
def test_long_list_without_aliases_is_read() -> None:
    assert len(parse_yaml("\n".join(f"- [label {number}, x]" for number in range(15_000)), "some.yaml")) == 15_000


@pytest.mark.parametrize("text", ["[" * 20_000, "[" * 20_000 + "]" * 20_000, "{a: " * 20_000, "- " * 20_000 + "a", "? " * 2_000 + "a"])
def test_deep_nesting_is_rejected_with_its_line(text: str) -> None:
    assert re.search(r"line 1, column \d+: lists and mappings are nested more than 100 deep", error_of(text))


@pytest.mark.parametrize(
    "value",
    [
        "2026-13-45",
        "!!int abc",
        "!!int ''",
        "!!float abc",
        "!!bool abc",
        "!!timestamp abc",
        "9" * 5_000,
        "2026-01-01 99:00:00",
        "!!int [1]",
    ],
)
def test_invalid_scalar_is_rejected_with_its_line(value: str) -> None:
    message = error_of(f"task: a\nname: {value}\n")

    assert message.startswith("some.yaml is not YAML: line 2, column 7: ")
    assert len(message) < 400


@pytest.mark.parametrize(
    "text", [b"a: \xff\n", "a: \x01", "x: [1", "a: *b", "a: 1\n---\nb: 2", "!!python/object:os.x {}", "? [a]\n: 1", "%YAML 9.9\n---\na"]
)
def test_invalid_yaml_gives_a_one_line_error(text: str | bytes) -> None:
    assert len(error_of(text).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' occurs 2 times"),
        ('[{"b": {"c": 1, "c": 1}}]', "the key 'c' occurs 2 times"),
        ("[" * 100_000, "nested too deeply"),
        ("{nope", "is not JSON"),
        ('{"a": ' + "9" * 5_000 + "}", "is not JSON"),
        (b'{"a": "\xff"}', "is not UTF-8: line 1 contains the byte 0xff"),
    ],
)
def test_json_is_read_strictly(text: str | bytes, message: str) -> None:
    with pytest.raises(BadParams, match=re.escape(message)):
        parse_json(text, "some.json")


@pytest.mark.parametrize("name", ["missing.yaml", ".", "x" * 300])
def test_unreadable_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadParams, match="cannot be read"):
        read_yaml(tmp_path / name)


def test_no_other_module_reads_yaml() -> None:
    reads = re.compile(r"yaml\.(safe_load|load|full_load|unsafe_load|YAML)\b|safe_load\(")
    files = [file for folder in ("components", "flows", "infra", "bench", "examples") for file in (ROOT / folder).rglob("*.py")]

    assert [str(file) for file in files if reads.search(file.read_text(encoding="utf-8"))] == []
