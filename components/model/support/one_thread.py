"""Linear algebra on one thread, for results that do not depend on the number of cores."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def on_one_thread(compute: Callable[[], Result]) -> Result:
    """Run `compute` on one thread: the thread count changes the last digits, and two busy cores took four times as long."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        return compute()
