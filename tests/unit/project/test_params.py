"""The sections of params.yaml: strict types, unknown and renamed keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from components.artifacts.verdict import Role
from components.core.errors import BadParams
from components.core.section import Section
from components.gates import GatesParams
from flows.project.init_params import write_params
from flows.project.params import read_params
from tests.support.tickets import make_tickets


class Inner(Section):
    rate: float = Field(0.5, gt=0)


class Outer(Section):
    inner: Inner = Inner()
    count: int = Field(1, ge=1)


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(BadParams, match=r"params.yaml: train.conut is not a setting; did you mean 'count'"):
        Outer.parse({"conut": 3}, "train")


def test_unknown_nested_key_names_the_nearest() -> None:
    with pytest.raises(BadParams, match=r"train.inner.rat is not a setting; did you mean 'rate'"):
        Outer.parse({"inner": {"rat": 3}}, "train")


class Renamed(Section):
    renamed: ClassVar[Mapping[str, str]] = {"speed": "rate"}

    rate: float = 1.0


class Holder(Section):
    one: Renamed = Renamed()
    several: dict[str, Renamed] = Field(default_factory=dict)


def test_old_setting_name_works_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    holder = Holder.parse({"one": {"speed": 2.0}, "several": {"a": {"speed": 3.0}}}, "holder")

    assert (holder.one.rate, holder.several["a"].rate) == (2.0, 3.0)
    assert "params.yaml: holder.one.speed is now holder.one.rate; the old name works in this release only" in caplog.messages
    assert "params.yaml: holder.several.a.speed is now holder.several.a.rate; the old name works in this release only" in caplog.messages


def test_old_role_works_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert GatesParams.parse({"leakage": {"role": "vetoes"}}, "gates").leakage.role is Role.BLOCKING
    assert "role: vetoes is now role: blocking" in caplog.text


def test_old_and_new_setting_name_together_are_refused() -> None:
    with pytest.raises(BadParams, match=r"holder\.one\.speed is the old name of holder\.one\.rate, and both are set; remove speed"):
        Holder.parse({"one": {"speed": 2.0, "rate": 1.0}}, "holder")


def test_settings_of_the_previous_release_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_tickets().to_csv(tmp_path / "tickets.csv", index=False)
    write_params(tmp_path / "tickets.csv", tmp_path / "new.yaml", name=None, force=False, strategy="search")
    text = (tmp_path / "new.yaml").read_text(encoding="utf-8")
    old = {"test_budget:": "looks:", "best_champion:": "anchor:", "initial_trial:": "first:", "train_fraction:": "share:"}
    old |= {"on_overlap:": "late:"}
    for new, before in old.items():
        assert new in text, new
        text = text.replace(f"  {new}", f"  {before}").replace(f"{{{new}", f"{{{before}")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")

    assert read_params(tmp_path / "params.yaml") == read_params(tmp_path / "new.yaml")
    assert {message.split(" is now ")[1].split(";")[0] for message in caplog.messages} >= {
        "gates.test_budget",
        "gates.best_champion",
        "tune.initial_trial",
        "tune.train_fraction",
        "retrain.on_overlap",
    }


def test_wrong_type_names_the_value() -> None:
    with pytest.raises(BadParams, match=r"train.count: .*integer.*, found 'many'"):
        Outer.parse({"count": "many"}, "train")


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(BadParams) as caught:
        Outer.parse({"count": 0, "inner": {"rate": -1}, "x": 1}, "train")

    assert len(str(caught.value).splitlines()) == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().count = 2  # type: ignore[misc]


class Typed(Section):
    real: float = 1.0
    whole: int = 1
    flag: bool = False
    said: str = ""
    perhaps: float | None = None
    either: int | Literal["auto"] = "auto"
    several: tuple[int, ...] = ()
    named: dict[str, float] = Field(default_factory=dict)
    inner: Inner = Inner()
    inside: dict[str, Inner] = Field(default_factory=dict)


@pytest.mark.parametrize(
    "raw",
    [
        {name: value}
        for name, values in {
            "real": (True, "3", "1e-4", float("nan"), float("inf"), 10**400),
            "whole": (True, False, "3", 1.5, float("inf")),
            "flag": (1, 0, 1.0, "yes", "true"),
            "perhaps": (True, "3"),
            "either": (True, "3"),
            "several": ([1, True], ["1"]),
            "named": ({"a": True}, {"a": "1"}, {"a": float("nan")}),
            "inner": ({"rate": True}, {"rate": "0.5"}),
            "inside": ({"a": {"rate": True}},),
        }.items()
        for value in values
    ],
    ids=str,
)
def test_values_are_not_coerced(raw: dict[str, object]) -> None:
    with pytest.raises(BadParams) as caught:
        Typed.parse(raw, "train")

    assert str(caught.value).startswith(f"params.yaml: train.{next(iter(raw))}")
    assert "function" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"real": "3"}, "real: expected a number, not a text; leave the quotes out, found '3'"),
        ({"real": "0,5"}, "real: expected a number, not a text; write digits with a dot and no comma, e.g. 0.5 or 1e-4, found '0,5'"),
        ({"flag": "yes"}, "flag: expected true or false, without quotes, found 'yes'"),
        ({"said": 2026}, "said: expected a text, found 2026; put it in quotes"),
        ({"said": True}, "said: expected a text, found True; put it in quotes"),
        ({"said": None}, "said: expected a text, found None"),
        ({"several": "1, 2"}, "several: expected a list, e.g. [a, b], found '1, 2'"),
        ({"named": ["a"]}, "named: expected a mapping, e.g. {a: b}, found ['a']"),
    ],
)
def test_wrong_value_names_the_expected_form(raw: dict[str, object], message: str) -> None:
    with pytest.raises(BadParams) as caught:
        Typed.parse(raw, "train")

    assert str(caught.value) == f"params.yaml: train.{message}"


def test_integral_values_fit_float_and_int() -> None:
    typed = Typed.parse({"real": 2, "whole": 3.0, "several": [1, 2], "perhaps": None, "either": 4, "flag": True}, "train")

    assert typed == Typed(real=2.0, whole=3, several=(1, 2), either=4, flag=True)


def test_large_value_is_shortened() -> None:
    with pytest.raises(BadParams) as caught:
        Outer.parse({"count": [["x" * 1_000] * 1_000] * 1_000}, "train")

    assert len(str(caught.value)) < 300


def test_another_task_yields_one_complete_error(tmp_path: Path) -> None:
    make_tickets().to_csv(tmp_path / "tickets.csv", index=False)
    write_params(tmp_path / "tickets.csv", tmp_path / "new.yaml", name=None, force=False)
    text = (tmp_path / "new.yaml").read_text(encoding="utf-8")
    (tmp_path / "new.yaml").write_text(text.replace("task: text_classification", "task: token_classification"), encoding="utf-8")

    with pytest.raises(BadParams) as error:
        read_params(tmp_path / "new.yaml")
    for part in ("train.metric", "tune.metric", "gates.baseline", "tokens, tags", "--task token_classification"):
        assert part in str(error.value)
    assert f"{tmp_path / 'new.yaml'}: " in str(error.value)
