"""Read YAML and JSON strictly: no duplicate keys, bounded aliases and depth, errors with line numbers."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import BadParams, shorten

DEPTH = 100  # limit of nested lists and mappings
REPEATED = 10_000  # limit of nodes that aliases add
# libyaml reads a lock file of a thousand lines in milliseconds.
_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, as_dvc: bool = False) -> Any:
    """Read a YAML file; `as_dvc` as in `parse_yaml`.

    Raises:
        BadParams: the file is unreadable, not UTF-8 or not YAML, has a duplicate key, or exceeds the limits.
    """
    return parse_yaml(_content(path), path, as_dvc=as_dvc)


def parse_yaml(content: bytes | str, where: Path | str, as_dvc: bool = False, texts: bool = False) -> Any:
    """Parse YAML; `where` names the text in messages.

    Numbers follow YAML 1.2, as in DVC: 1e-4 needs no dot, 010 is ten, and 1:30 is a text. yes, no, on and off are booleans as in
    YAML 1.1; with `as_dvc` they are texts, which DVC writes without quotes. With `texts`, every value is a text.

    Raises:
        BadParams: as for `read_yaml`.
    """
    text = _decoded(content, where)
    try:
        _refuse_bombs(text)
        loader = (_Texts if texts else _AsDvc if as_dvc else _Loader)(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _DuplicateKeys as error:
        raise BadParams("\n".join(f"{where}: {fault}" for fault in error.args)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        message = ", ".join(filter(None, (error.context, error.problem)))
        if conflict := _CONFLICT.search(text):
            message = "it contains git conflict markers (<<<<<<<, =======, >>>>>>>): keep one side and remove them"
            position = f"line {text.count(chr(10), 0, conflict.start()) + 1}: "
        raise BadParams(f"{where} is not YAML: {position}{message}") from None
    except yaml.reader.ReaderError as error:
        raise BadParams(f"{where} is not YAML: {_unreadable(text, error)}") from None
    except yaml.YAMLError as error:
        raise BadParams(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BadParams: the file is unreadable, not UTF-8 or not JSON, or has a duplicate key.
    """
    return parse_json(_content(path), path)


def parse_json(content: bytes | str, where: Path | str) -> Any:
    """Parse JSON; `where` names the text in messages.

    Raises:
        BadParams: as for `read_json`.
    """
    try:
        return json.loads(_decoded(content, where), object_pairs_hook=_unique_keys)
    except _DuplicateKeys as error:
        raise BadParams("\n".join(f"{where}: {fault}" for fault in error.args)) from None
    except RecursionError:
        raise BadParams(f"{where} cannot be read: its lists and objects are nested too deeply") from None
    except ValueError as error:
        raise BadParams(f"{where} is not JSON: {error}") from None


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings with dotted names; lists and empty mappings are kept as values."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return flat


class _DuplicateKeys(Exception):
    """Duplicate keys in mappings; each argument is a message."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        duplicates = [(name, count) for name, count in counts.items() if count > 1]
        raise _DuplicateKeys(*(f"the key {name!r} occurs {count} times in one object; keep one of them" for name, count in duplicates))
    return result


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadParams(f"{path} cannot be read: {error.strerror}") from None


def _decoded(content: bytes | str, where: Path | str) -> str:
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadParams(f"{where} is not UTF-8: line {line} contains the byte 0x{content[error.start]:02x}; save it as UTF-8") from None


def _unreadable(text: str, error: yaml.reader.ReaderError) -> str:
    """Return the line of the first character that YAML forbids; the parsers count to it in different ways."""
    match = _FORBIDDEN.search(text)
    if match is None:
        return " ".join(str(error).split())
    line = text.count("\n", 0, match.start()) + 1
    return f"line {line} contains the control character 0x{ord(match[0]):02x}, which YAML forbids; remove it"


_CONFLICT = re.compile(r"^<{7} ", re.MULTILINE)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


class _Loader(_SAFE):
    """PyYAML's safe loader with errors for duplicate keys and the line number of invalid scalars."""

    def get_single_data(self) -> Any:
        """Return the document, or None if the text is empty."""
        node = self.get_single_node()
        if node is None:
            return None
        if faults := [fault for mapping in _mappings(node) for fault in self._duplicates(mapping)]:
            raise _DuplicateKeys(*faults)
        return self.construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node.

        Raises:
            yaml.YAMLError: the value is invalid; with its line.
        """
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, _DuplicateKeys):
            raise
        except Exception as error:  # the constructors raise various exception types
            tag, reason = node.tag.rpartition(":")[2], str(error) if isinstance(error, ValueError) else "wrong format"
            message = f"{_short(node.value)} is not a valid {tag} ({reason}); put a text in quotes"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None

    def _duplicates(self, mapping: yaml.MappingNode) -> Iterator[str]:
        """Yield a message per duplicate key: `1` and `01` are equal, as are `yes` and `true`. Keys merged by `<<` may be overridden."""
        seen: dict[Any, yaml.Node] = {}
        for key, _ in mapping.value:
            value = key.value if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key, deep=True)
            try:
                first = seen.setdefault(value, key)
            except TypeError:  # a list or mapping, which the constructor rejects
                continue
            if first is not key:
                same = "" if first.value == key.value else f", written {_short(key.value)}"
                lines = first.start_mark.line + 1, key.start_mark.line + 1
                yield f"the key {_short(first.value)} is in line {lines[0]} and again in line {lines[1]}{same}; keep one of them"

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return an integer; leading zeros are ignored."""
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text) if text.lstrip("+-").isdecimal() else int(text, 0)


class _AsDvc(_Loader):
    """Reads files written by DVC, and params.yaml as DVC compares it."""


class _Texts(_Loader):
    """Reads every value as a text."""


# Numbers of ruamel.yaml, which DVC uses. YAML 1.1 requires a dot and a sign in 1e-4, and has octal and sexagesimal numbers.
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))\Z"
)
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")


def _set_resolvers(loader: Any, tags: dict[str, tuple[re.Pattern[str], str]]) -> None:
    """Replace the resolvers of these tags: each tag has a pattern and the possible first characters."""
    names = {f"tag:yaml.org,2002:{tag}" for tag in tags}
    resolvers = loader.yaml_implicit_resolvers.items()
    loader.yaml_implicit_resolvers = {first: [pair for pair in pairs if pair[0] not in names] for first, pairs in resolvers}
    for tag, (pattern, first) in tags.items():
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, first)


_NUMBERS = {"int": (_INT, "-+0123456789"), "float": (_FLOAT, "-+.0123456789")}
_set_resolvers(_Loader, _NUMBERS)
_set_resolvers(_AsDvc, {**_NUMBERS, "bool": (_BOOL, "tTfF")})
_Texts.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)  # for all three loaders


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Yield every mapping of a document once, even if aliases repeat it."""
    pending, seen = [root], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            pending += [part for pair in reversed(node.value) for part in reversed(pair)]
        else:
            pending += reversed(node.value)


def _refuse_bombs(text: str) -> None:
    """Check depth and alias expansion before building the document.

    Raises:
        yaml.YAMLError: the nesting is too deep, an alias contains itself, or aliases repeat too much.
    """
    sizes: dict[str | None, int | None] = {}  # nodes below each anchor; None while it is open
    open_nodes: list[tuple[str | None, int]] = []  # anchor of each open list or mapping, and the count of nodes before it
    nodes = repeated = 0
    for event in yaml.parse(text, Loader=_SAFE):
        fault = ""
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 0)  # an unknown anchor fails later, with its name
            if size is None:
                fault = f"the alias *{event.anchor} contains itself"
            nodes, repeated = nodes + (size or 0), repeated + (size or 0)
            if repeated > REPEATED:
                fault = f"aliases repeat more than {REPEATED:,} values; write them out or use fewer"
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
            sizes[event.anchor] = None
            if len(open_nodes) > DEPTH:
                fault = f"lists and mappings are nested more than {DEPTH} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes[event.anchor] = 1
        if fault:
            mark: Any = event.start_mark
            raise yaml.composer.ComposerError(None, None, fault, mark)


def _short(value: object) -> str:
    return repr(shorten(value if isinstance(value, str) else type(value).__name__, 60))
