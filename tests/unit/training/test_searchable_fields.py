"""Every field of `train` can be a dimension of the search, except those listed in docs/training.md with a reason."""

import re
from typing import Any, Literal, get_args, get_origin

import pytest

from components.core.errors import BadParams
from components.model import methods
from components.training.trainer import TrainParams, TrainSection
from components.training.tune.settings import NOT_SEARCHABLE, TuneParams, searched
from tests.support.project import ROOT

FIELDS = TrainParams.model_fields
BOUNDS = {"ge": 0.0, "gt": 1e-6, "le": 0.0, "lt": -1e-6}  # distance from the bound to the nearest valid value


def dimension(name: str) -> dict[str, Any]:
    """Return a range of the field's type: all choices, or from its lowest value to near its default."""
    info = FIELDS[name]
    types = [option for option in (get_args(info.annotation) or (info.annotation,)) if option is not type(None)]
    if name == "method":
        return {"type": "categorical", "choices": methods.available()}
    if get_origin(info.annotation) is Literal or types == [bool] or types == [str]:
        return {"type": "categorical", "choices": list(get_args(info.annotation)) or ([True, False] if types == [bool] else [info.default])}
    (low,) = [getattr(bound, way) + BOUNDS[way] for bound in info.metadata for way in ("ge", "gt") if hasattr(bound, way)]
    tops = [getattr(bound, way) + BOUNDS[way] for bound in info.metadata for way in ("le", "lt") if hasattr(bound, way)]
    high = min([*tops, low + 8]) if types == [int] else min([*tops, 0.5])
    return {"type": types[0].__name__, "low": low, "high": high}


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


def test_exceptions_match_the_docs() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^Not searched by `tune.space`, since .*\Z", page, re.MULTILINE | re.DOTALL)

    assert set(re.findall(r"`(\w+)`", named)) == set(NOT_SEARCHABLE) != set()
