"""Copies studies from `var/optuna` into the shared database."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.errors import RetuneError
from components.core.temporary import temporary

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def copy_studies(folder: Path, database: str, really: bool) -> int:
    """Copy each study of the journals in `folder` unless the database already has it; return the number of studies.

    An incomplete copy of a killed migration is replaced; a study that has more trials in the database is kept. The journals are not
    changed.

    Raises:
        RetuneError: a study cannot be read, or its copy differs.
        Unavailable: a search uses one of the studies, or the database does not answer.
    """
    names = sorted(path.stem for path in folder.glob("*.log"))
    if not really or not names:
        return len(names)
    import optuna

    from components.training.tune.storage import Journals, Tables

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with temporary() as aside:
            for name in names:
                shutil.copy(folder / f"{name}.log", aside)
                with Journals(aside).hold(name) as source, Tables(database).hold(name) as target:
                    _copy(name, source, target)
    except (KeyError, ValueError) as error:
        raise RetuneError(f"a study in {folder} cannot be copied: {error}") from None
    finally:
        optuna.logging.set_verbosity(before)
    return len(names)


def _copy(name: str, source: "BaseStorage", target: "BaseStorage") -> None:
    import optuna

    expected = optuna.load_study(study_name=name, storage=source).trials
    if name in optuna.get_all_study_names(target):
        if len(optuna.load_study(study_name=name, storage=target).trials) >= len(expected):
            return
        optuna.delete_study(study_name=name, storage=target)
    optuna.copy_study(from_study_name=name, from_storage=source, to_storage=target)
    copied = optuna.load_study(study_name=name, storage=target).trials
    if [(trial.number, trial.state, trial.params, trial.values) for trial in copied] != [
        (trial.number, trial.state, trial.params, trial.values) for trial in expected
    ]:
        raise RetuneError(f"the copy of study {name} in the database differs from its journal; run again to replace it")
