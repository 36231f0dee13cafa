import pytest
from pydantic import Field

from components.errors import BadParams
from components.params import Section


class Inner(Section):
    rate: float = Field(0.5, gt=0)


class Outer(Section):
    inner: Inner = Inner()
    count: int = Field(1, ge=1)


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(BadParams, match=r"params.yaml: train.conut is not a setting; did you mean 'count'"):
        Outer.parse({"conut": 3}, "train")


def test_an_unknown_key_of_a_section_inside_names_the_nearest_one_there() -> None:
    with pytest.raises(BadParams, match=r"train.inner.rat is not a setting; did you mean 'rate'"):
        Outer.parse({"inner": {"rat": 3}}, "train")


def test_a_wrong_type_says_what_was_found() -> None:
    with pytest.raises(BadParams, match=r"train.count: .*integer.*, found 'many'"):
        Outer.parse({"count": "many"}, "train")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadParams) as caught:
        Outer.parse({"count": 0, "inner": {"rate": -1}, "x": 1}, "train")

    assert len(str(caught.value).splitlines()) == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().count = 2  # type: ignore[misc]
