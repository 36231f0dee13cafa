"""What a test split can decide, before anything is trained."""

from components.data.preprocess.decidability import decision_faults, smallest_difference


def split(groups: int, rows_each: int, test_groups: int) -> tuple[list[str], list[bool]]:
    names = [f"g{group}" for group in range(groups) for _ in range(rows_each)]
    return names, [int(name[1:]) < test_groups for name in names]


def test_too_few_groups_name_the_share() -> None:
    names, in_test = split(180, 3, 37)
    (fault,) = decision_faults(names, in_test, ["a", "b", "c"] * 180, 0.2)

    assert "the test split has 37 groups, and an interval needs at least 50" in fault
    assert "preprocess.test_share: 0.3 gives about 54; else it takes about 263 groups in the data (now 180)" in fault


def test_enough_groups_are_no_fault() -> None:
    names, in_test = split(260, 2, 52)

    assert not decision_faults(names, in_test, ["a", "b"] * 260, 0.2)


def test_rows_of_a_task_without_classes_are_counted_too() -> None:
    names, in_test = split(200, 1, 40)

    assert not decision_faults(names, in_test, ["a", "b"] * 100, 0.2)
    (fault,) = decision_faults(names, in_test, None, 0.2)
    assert "the test split has 40 rows" in fault


def test_rare_classes_are_named() -> None:
    names, in_test = split(200, 1, 60)
    labels = ["rare" if 56 <= row < 90 else "often" for row in range(200)]
    (fault,) = decision_faults(names, in_test, labels, 0.2)

    assert "1 of 2 classes have fewer than 10 test rows" in fault
    assert "'rare' (4)" in fault
    assert "preprocess.test_share: 0.35 gives about 11" in fault


def test_given_splits_need_rows_instead_of_a_share() -> None:
    names, in_test = split(100, 2, 20)
    (fault,) = decision_faults(names, in_test, None, None)

    assert fault.endswith("add rows to the given test split")


def test_four_times_the_rows_show_half_the_difference() -> None:
    assert round(smallest_difference(400) / smallest_difference(100), 6) == 0.5
