"""Every field of `train` can be a dimension of the search, but for those that docs/training.md names, each with its reason."""

import re
from typing import Any, Literal, get_args, get_origin

import pytest

from components.core.errors import BadParams
from components.model import methods
from components.training.trainer import TrainParams, TrainSection
from components.training.tune.settings import NOT_SEARCHABLE, TuneParams, searched
from tests.support.project import ROOT

FIELDS = TrainParams.model_fields
BOUNDS = {"ge": 0.0, "gt": 1e-6, "le": 0.0, "lt": -1e-6}  # how far from the bound the value next to it is


def dimension(name: str) -> dict[str, Any]:
    """A range of the field's own type: all of its choices, or from its lowest value up to near its default."""
    info = FIELDS[name]
    kinds = [kind for kind in (get_args(info.annotation) or (info.annotation,)) if kind is not type(None)]
    if name == "method":
        return {"type": "categorical", "choices": methods.available()}
    if get_origin(info.annotation) is Literal or kinds == [bool] or kinds == [str]:
        return {"type": "categorical", "choices": list(get_args(info.annotation)) or ([True, False] if kinds == [bool] else [info.default])}
    (low,) = [getattr(bound, way) + BOUNDS[way] for bound in info.metadata for way in ("ge", "gt") if hasattr(bound, way)]
    tops = [getattr(bound, way) + BOUNDS[way] for bound in info.metadata for way in ("le", "lt") if hasattr(bound, way)]
    high = min([*tops, low + 8]) if kinds == [int] else min([*tops, 0.5])
    return {"type": kinds[0].__name__, "low": low, "high": high}


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in NOT_SEARCHABLE])
def test_every_other_field_of_train_can_be_searched(name: str) -> None:
    space = TuneParams.parse({"space": {name: dimension(name)}}, "tune").space

    assert list(searched(space, TrainSection.parse({name: "tuned"}, "train"))) == [name]
    for value in space[name].extremes():
        assert getattr(TrainSection.parse({name: "tuned"}, "train").settings({name: value}), name) == value


@pytest.mark.parametrize("name", NOT_SEARCHABLE)
def test_an_exception_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(BadParams, match=rf"tune: space\.{name} cannot be searched: it is set in `tune` or fixed in `train`"):
        TuneParams.parse({"space": {name: dimension(name)}}, "tune")
    with pytest.raises(BadParams, match=rf"train\.{name} is set to `tuned`, but tune\.space has no such dimension; it cannot be searched"):
        searched({}, TrainSection.parse({name: "tuned"}, "train"))


def test_the_exceptions_are_those_that_the_page_names() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^Not searched, since .*\Z", page, re.MULTILINE | re.DOTALL)

    assert set(re.findall(r"`(\w+)`", named)) == set(NOT_SEARCHABLE) != set()
