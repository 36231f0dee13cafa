"""Read the types of columns and the names of classes that are stored as numbers.

Hugging Face datasets store a class as its number. The names are in the Parquet schema (key `huggingface`), in the YAML of `README.md`
(`dataset_info`), or in `dataset_infos.json` next to the files.
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
"""The files that describe a dataset, the preferred one first."""

Names = tuple[str, ...] | list[Any] | dict[str, Any]
"""The class names of a column, by number; nested in a list for columns of lists, and in a mapping for columns of objects."""

_FRONT = re.compile(r"---\r?\n(.*?\n)---\s*\n", re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,18}(\.0+)?")  # as text; pandas writes 7.0 if a cell of the column is missing
_UNLABELLED = -1  # in public test sets


@dataclass(frozen=True)
class ColumnType:
    """A column of a file: the type of its values, empty if unknown, and the names of its classes."""

    type: str = ""
    names: Names | None = None


def apply_class_names(value: Any, names: Names | None) -> Any:
    """Replace class numbers by their names; a text that already is a name stays.

    Raises:
        ValueError: a number has no name.
    """
    if names is None or value is None or value != value:  # NaN: a missing cell
        return value
    if isinstance(names, dict):
        return {key: apply_class_names(item, names.get(key)) for key, item in value.items()} if isinstance(value, dict) else value
    if isinstance(names, list):
        return [apply_class_names(item, names[0]) for item in value] if isinstance(value, list) else value
    if isinstance(value, list | dict) or (isinstance(value, str) and (value in names or not _NUMBER.fullmatch(value))):
        return value
    number = int(float(value))
    if isinstance(value, str) and any(name.isdecimal() and name != str(index) for index, name in enumerate(names)):
        raise ValueError(
            f"{value} may be a class number or a class name: the dataset names its classes {', '.join(names[:5])}, and this file contains "
            "texts; set snapshot.class_labels: numbers to keep the cells unchanged"
        )
    if number == _UNLABELLED:
        return None
    if number != float(value) or not 0 <= number < len(names):
        raise ValueError(
            f"class {value} has no name: the dataset names 0 ({names[0]}) to {len(names) - 1} ({names[-1]}); "
            "set snapshot.class_labels: numbers to keep the numbers"
        )
    return names[number]


def class_names_from_schema(metadata: Mapping[bytes, bytes] | None) -> dict[str, Names]:
    """Return the class names in the metadata of a Parquet schema, by column."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return _features(features)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def class_names_from_cards(folders: Iterable[Path], columns: Sequence[str]) -> dict[str, Names]:
    """Return the class names from the first dataset card in `folders` that describes a table with these columns."""
    for path in (folder / name for folder in folders for name in CARDS):
        try:
            text = path.read_text(encoding="utf-8-sig")
            described = [_features(config) for config in _configs(path, text) if set(columns) <= set(config) or set(config) <= set(columns)]
        except FileNotFoundError:
            continue
        except (OSError, BadParams, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            log.warning("%s cannot be read, so its class names are not used: %s", path, first_line(error))
            continue
        named = [names for names in described if names]
        if any(names != named[0] for names in named):
            log.warning("%s has conflicting class names for these columns, so none are used", path)
        elif named:
            return named[0]
    return {}


def card_folders(files: Iterable[PurePosixPath | Path]) -> list[Path]:
    """Return the folders that may contain a dataset card: those of the files, and up to two levels above."""
    folders = list(dict.fromkeys(Path(file).parent for file in files))
    above = [parent for folder in folders for parent in list(folder.parents)[:2]]
    return list(dict.fromkeys([*folders, *above]))


def _configs(path: Path, text: str) -> list[dict[str, Any]]:
    """Return the features of each configuration in a dataset card, in the form of a Parquet schema."""
    if path.suffix == ".json":
        return [info["features"] for info in parse_json(text, path).values() if info.get("features")]
    front = _FRONT.match(text)
    # Parsed as texts: a class may be named no, or 1.0.
    infos = (parse_yaml(f"\n{front[1]}", path, texts=True) or {}).get("dataset_info", []) if front else []
    return [_from_yaml(info["features"]) for info in ([infos] if isinstance(infos, dict) else infos) if info.get("features")]


def _features(features: Mapping[str, Any]) -> dict[str, Names]:
    named = {column: _names(feature) for column, feature in features.items()}
    return {column: names for column, names in named.items() if names is not None}


def _names(feature: Any) -> Names | None:
    """Return the class names in a JSON feature of `datasets`; None if it has no classes."""
    if isinstance(feature, list):
        inner = _names(feature[0])
        return None if inner is None else [inner]
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return tuple(map(str, feature["names"])) or None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        # A sequence of objects is an object of lists, a list of objects is a list: both are read.
        if isinstance(feature["feature"], dict) and "_type" not in feature["feature"]:
            inner = _features(feature["feature"])
            return [inner] if inner and feature["_type"] != "Sequence" else {name: [names] for name, names in inner.items()} or None
        return _names([feature["feature"]])
    return None if "_type" in feature else _features(feature) or None


def _from_yaml(features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Convert the features of a card's YAML to their JSON form."""
    return {str(feature["name"]): _yaml_feature(feature) for feature in features}


def _yaml_feature(feature: Any) -> Any:
    if not isinstance(feature, dict):
        return {"_type": "Value"}
    for key in ("sequence", "list"):
        if key in feature:
            inner = feature[key]
            converted = _from_yaml(inner) if isinstance(inner, list) else _yaml_feature(inner)
            return {"_type": "Sequence" if key == "sequence" else "List", "feature": converted}
    if isinstance(feature.get("struct"), list):
        return _from_yaml(feature["struct"])
    label = (feature["dtype"] if isinstance(feature.get("dtype"), dict) else feature).get("class_label")
    if not isinstance(label, dict):
        return {"_type": "Value"}
    names = label["names"]
    return {"_type": "ClassLabel", "names": [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names}
