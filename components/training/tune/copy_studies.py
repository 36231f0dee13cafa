"""Studies carried from `var/optuna` into the database that workers share, trial by trial."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.errors import RetuneError
from components.core.temporary import temporary

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def copy_studies(folder: Path, database: str, really: bool) -> int:
    """Copy each study of the journals in `folder` whole, unless it is there, and return how many there are.

    A study that a killed migration left in part is copied anew; one that has gone on in the database is left. The journals stay as
    they are, torn or not.

    Raises:
        RetuneError: a study cannot be read, or does not come back as it is.
        Unavailable: a search is at work in one of them, or the database does not answer.
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
        raise RetuneError(f"a study in {folder} cannot be carried: {error}") from None
    finally:
        optuna.logging.set_verbosity(before)
    return len(names)


def _copy(name: str, source: "BaseStorage", target: "BaseStorage") -> None:
    import optuna

    wanted = optuna.load_study(study_name=name, storage=source).trials
    if name in optuna.get_all_study_names(target):
        if len(optuna.load_study(study_name=name, storage=target).trials) >= len(wanted):
            return
        optuna.delete_study(study_name=name, storage=target)
    optuna.copy_study(from_study_name=name, from_storage=source, to_storage=target)
    found = optuna.load_study(study_name=name, storage=target).trials
    if [(one.number, one.state, one.params, one.values) for one in found] != [
        (one.number, one.state, one.params, one.values) for one in wanted
    ]:
        raise RetuneError(f"the study {name} does not come back from the database as it is in its journal; run again to copy it anew")
