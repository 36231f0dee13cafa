import numpy as np
import pytest

from components.model.support.cross_validation import choose, make_folds, out_of_fold

GROUPS = [f"g{row // 2}" for row in range(60)]
CLASSES = ["rare" if row % 10 < 2 else "common" for row in range(60)]


def test_each_row_is_held_out_once():
    for classes in (None, CLASSES):
        folds = make_folds(GROUPS, classes)

        assert len(folds) == 3
        assert sorted(np.concatenate([held for _, held in folds])) == list(range(60))
        assert all(sorted([*kept, *held]) == list(range(60)) for kept, held in folds)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_groups_are_not_split(classes):
    for kept, held in make_folds(GROUPS, classes):
        assert not {GROUPS[row] for row in kept} & {GROUPS[row] for row in held}


@pytest.mark.parametrize("groups", [GROUPS, list(map(str, range(60)))])
def test_folds_have_equal_shares_of_a_class(groups):
    assert [sum(CLASSES[row] == "rare" for row in held) for _, held in make_folds(groups, CLASSES)] == [4, 4, 4]


def test_class_with_one_row_is_accepted(recwarn):
    assert len(make_folds(list("abcdef"), ["x", "y", "y", "y", "z", "z"])) == 3
    assert len(make_folds(list("abc"), ["x", "y", "z"])) == 3
    assert not recwarn.list


def test_few_groups_give_fewer_folds():
    assert len(make_folds(["a", "a", "b"])) == 2
    assert make_folds(["a", "a", "a"]) == make_folds([]) == []


def test_best_candidate_out_of_fold_is_chosen():
    truth, folds = np.arange(60.0), make_folds(GROUPS)

    def predict(shift: float, kept: np.ndarray, held: np.ndarray) -> np.ndarray:
        return truth[held] + shift

    def score(predicted: np.ndarray, rows: np.ndarray) -> float:
        return -float(np.abs(predicted - truth[rows]).mean())

    assert choose([3.0, -1.0, 1.0, 2.0], folds, predict, score) == -1.0
    assert choose([3.0, 1.0], [], predict, score) == 3.0


def test_predictions_out_of_fold_are_in_row_order():
    predicted, rows = out_of_fold(make_folds(GROUPS)[:2], lambda kept, held: held * 2.0)

    assert sorted(rows) == rows.tolist()
    assert predicted.tolist() == (rows * 2.0).tolist()
