"""What is known of a source's columns beside their names: the type of their values, and the names of classes that stand as numbers.

Data sets of the Hugging Face hub hold a class as its number. The names are in the Parquet file's schema (the key `huggingface`), or in
`README.md` (its YAML, `dataset_info`) or `dataset_infos.json` beside the files.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.core.documents import parse_json, parse_yaml
from components.core.errors import BadParams, first_line

log = logging.getLogger(__name__)

CARDS = ("README.md", "dataset_infos.json")
"""The files that describe a data set, the better one first."""

Names = tuple[str, ...] | list[Any] | dict[str, Any]
"""The names of a column's classes, by number; within a list where it holds lists, within a mapping where it holds objects."""

_FRONT = re.compile(r"---\r?\n(.*?\n)---\s*\n", re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,18}(\.0+)?")  # as text; pandas writes 7.0 where a cell of the column is missing
_UNKNOWN = -1  # a row without a label, as in public test sets


@dataclass(frozen=True)
class ColumnType:
    """A column of a file: `kind` is the type of its values, nothing where it has none; `names` those of its classes."""

    kind: str = ""
    names: Names | None = None


def with_names(value: Any, names: Names | None) -> Any:
    """Return a value in which classes have their names; a text that is a name already stays.

    Raises:
        ValueError: a number has no name.
    """
    if names is None or value is None or value != value:  # NaN: a missing cell
        return value
    if isinstance(names, dict):
        return {key: with_names(item, names.get(key)) for key, item in value.items()} if isinstance(value, dict) else value
    if isinstance(names, list):
        return [with_names(item, names[0]) for item in value] if isinstance(value, list) else value
    if isinstance(value, list | dict) or (isinstance(value, str) and (value in names or not _NUMBER.fullmatch(value))):
        return value
    number = int(float(value))
    if isinstance(value, str) and any(name.isdecimal() and name != str(place) for place, name in enumerate(names)):
        raise ValueError(
            f"{value} may be the number of a class or a name: the data set calls its classes {', '.join(names[:5])}, and here are texts; "
            "snapshot.class_labels: numbers takes the cells as they are"
        )
    if number == _UNKNOWN:
        return None
    if number != float(value) or not 0 <= number < len(names):
        raise ValueError(
            f"the class {value} has no name: the data set names 0 ({names[0]}) to {len(names) - 1} ({names[-1]}); "
            "snapshot.class_labels: numbers takes the numbers as they are"
        )
    return names[number]


def of_schema(metadata: Mapping[bytes, bytes] | None) -> dict[str, Names]:
    """Return the names of classes that the metadata of a Parquet schema gives, by column."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return _features(features)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def of_cards(folders: Iterable[Path], columns: Sequence[str]) -> dict[str, Names]:
    """Return the names of classes that the first description in `folders` has for a table with these columns."""
    for path in (folder / name for folder in folders for name in CARDS):
        try:
            text = path.read_text(encoding="utf-8-sig")
            found = [_features(each) for each in _described(path, text) if set(columns) <= set(each) or set(each) <= set(columns)]
        except FileNotFoundError:
            continue
        except (OSError, BadParams, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            log.warning("%s cannot be read, so names of classes are not taken from it: %s", path, first_line(error))
            continue
        named = [each for each in found if each]
        if any(each != named[0] for each in named):
            log.warning("%s names the classes of these columns in different ways, so none is taken", path)
        elif named:
            return named[0]
    return {}


def folders_of(files: Iterable[PurePosixPath | Path]) -> list[Path]:
    """Return where a description of these files may be: their folders, and those above them up to two levels."""
    own = list(dict.fromkeys(Path(file).parent for file in files))
    above = [parent for folder in own for parent in list(folder.parents)[:2]]
    return list(dict.fromkeys([*own, *above]))


def _described(path: Path, text: str) -> list[dict[str, Any]]:
    """Return the features of each configuration that a card describes, as in a Parquet schema."""
    if path.suffix == ".json":
        return [each["features"] for each in parse_json(text, path).values() if each.get("features")]
    front = _FRONT.match(text)
    # As texts alone: a class may be called no, or 1.0.
    infos = (parse_yaml(f"\n{front[1]}", path, texts=True) or {}).get("dataset_info", []) if front else []
    return [_from_yaml(each["features"]) for each in ([infos] if isinstance(infos, dict) else infos) if each.get("features")]


def _features(features: Mapping[str, Any]) -> dict[str, Names]:
    named = {column: _names(feature) for column, feature in features.items()}
    return {column: names for column, names in named.items() if names is not None}


def _names(feature: Any) -> Names | None:
    """Return the names of the classes in a feature of `datasets`, as it is written in JSON; None where it has no class."""
    if isinstance(feature, list):
        inner = _names(feature[0])
        return None if inner is None else [inner]
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return tuple(map(str, feature["names"])) or None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        if isinstance(feature["feature"], dict) and "_type" not in feature["feature"]:  # a sequence of objects is an object of lists,
            inner = _features(feature["feature"])  # and a list of objects is one: both are read
            return [inner] if inner and feature["_type"] != "Sequence" else {name: [each] for name, each in inner.items()} or None
        return _names([feature["feature"]])
    return None if "_type" in feature else _features(feature) or None


def _from_yaml(features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the features of a card's YAML as they are written in JSON."""
    return {str(each["name"]): _yaml_feature(each) for each in features}


def _yaml_feature(each: Any) -> Any:
    if not isinstance(each, dict):
        return {"_type": "Value"}
    for key in ("sequence", "list"):
        if key in each:
            inner = each[key]
            made = _from_yaml(inner) if isinstance(inner, list) else _yaml_feature(inner)
            return {"_type": "Sequence" if key == "sequence" else "List", "feature": made}
    if isinstance(each.get("struct"), list):
        return _from_yaml(each["struct"])
    label = (each["dtype"] if isinstance(each.get("dtype"), dict) else each).get("class_label")
    if not isinstance(label, dict):
        return {"_type": "Value"}
    names = label["names"]
    return {"_type": "ClassLabel", "names": [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names}
