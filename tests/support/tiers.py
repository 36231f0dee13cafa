"""Divides the values of a parametrised test between the tiers."""

from collections.abc import Iterable
from typing import Any

import pytest


def rest_exhaustive(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Return `values` for `parametrize`, all but `kept` marked as exhaustive."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.exhaustive) for value in values]
