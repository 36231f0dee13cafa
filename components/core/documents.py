"""The one reader of YAML and JSON that people and tools write: no key twice, nothing that grows beyond its file, faults with their line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from components.core.errors import BadParams, shorten

DEPTH = 100  # lists and mappings inside one another
REPEATED = 10_000  # nodes that aliases may add to those that are written
# libyaml reads a lock of a thousand lines in milliseconds.
_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, as_dvc: bool = False) -> Any:
    """Return what a YAML file holds; with `as_dvc`, as for `parse_yaml`.

    Raises:
        BadParams: it cannot be read, is not UTF-8 or not YAML, has a key twice, or would grow beyond the bounds.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadParams(f"{path} cannot be read: {error.strerror}") from None
    return parse_yaml(content, path, as_dvc=as_dvc)


def parse_yaml(content: bytes | str, where: Path | str, as_dvc: bool = False, texts: bool = False) -> Any:
    """Return what a YAML text holds; `where` names it in messages.

    Numbers are those that DVC reads, by YAML 1.2: 1e-4 needs no dot, 010 is ten, and 1:30 is a text. A person's yes, no, on and off are
    booleans, by YAML 1.1; with `as_dvc` they are texts, which DVC writes without quotes. With `texts`, every value is a text.

    Raises:
        BadParams: as for `read_yaml`.
    """
    text = content if isinstance(content, str) else _decoded(content, where)
    try:
        _refuse_bombs(text)
        loader = (_Texts if texts else _AsDvc if as_dvc else _Loader)(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _Twice as error:
        raise BadParams("\n".join(f"{where}: {fault}" for fault in error.faults)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        told = ", ".join(filter(None, (error.context, error.problem)))
        if conflict := _CONFLICT.search(text):
            told = "a merge of git's left its marks (<<<<<<<, =======, >>>>>>>): keep one side, and remove them"
            place = f"line {text.count(chr(10), 0, conflict.start()) + 1}: "
        raise BadParams(f"{where} is not YAML: {place}{told}") from None
    except yaml.reader.ReaderError as error:
        raise BadParams(f"{where} is not YAML: {_unreadable(text, error)}") from None
    except yaml.YAMLError as error:
        raise BadParams(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        BadParams: it cannot be read, is not UTF-8 or not JSON, or has a key twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadParams(f"{path} cannot be read: {error.strerror}") from None
    return parse_json(content, path)


def parse_json(content: bytes | str, where: Path | str) -> Any:
    """Return what a JSON text holds; `where` names it in messages.

    Raises:
        BadParams: as for `read_json`.
    """
    text = content if isinstance(content, str) else _decoded(content, where)
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        raise BadParams("\n".join(f"{where}: {fault}" for fault in error.faults)) from None
    except RecursionError:
        raise BadParams(f"{where} is not read: its lists and objects are nested too deeply") from None
    except ValueError as error:
        raise BadParams(f"{where} is not JSON: {error}") from None


class _Twice(Exception):
    """Keys that stand twice in a mapping; a sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(*faults)
        self.faults = faults


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = [name for name in found if names.count(name) > 1]
        raise _Twice([f"the key {name!r} is there {names.count(name)} times in one object; keep one of them" for name in twice])
    return found


def _decoded(content: bytes, where: Path | str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadParams(f"{where} is not UTF-8: line {line} holds the byte 0x{content[error.start]:02x}; save it as UTF-8") from None


def _unreadable(text: str, error: yaml.reader.ReaderError) -> str:
    """Say where a character is that YAML forbids; both parsers name the first one, and count to it in their own ways."""
    found = _FORBIDDEN.search(text)
    if found is None:
        return " ".join(str(error).split())
    line = text.count("\n", 0, found.start()) + 1
    return f"line {line} holds the control character 0x{ord(found[0]):02x}, which YAML forbids; remove it"


_CONFLICT = re.compile(r"^<{7} ", re.MULTILINE)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


class _Loader(_SAFE):
    """PyYAML's safe loader that refuses a key twice, and names the line of a scalar that is not what it claims to be."""

    def get_single_data(self) -> Any:
        """Return the one document, None where there is none."""
        node = self.get_single_node()
        if node is None:
            return None
        if faults := [fault for mapping in _mappings(node) for fault in self._repeated(mapping)]:
            raise _Twice(faults)
        return self.construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node.

        Raises:
            yaml.YAMLError: with its line, whatever Python says of the text.
        """
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, _Twice):
            raise
        except Exception as error:  # ValueError, KeyError, AttributeError, OverflowError, IndexError: as the constructors happen to fail
            kind, reason = node.tag.rpartition(":")[2], str(error) if isinstance(error, ValueError) else "it is written otherwise"
            told = f"{_short(node.value)} is no {kind} ({reason}); in quotes it is a text"
            raise yaml.constructor.ConstructorError(None, None, told, node.start_mark) from None

    def _repeated(self, mapping: yaml.MappingNode) -> Iterator[str]:
        """Say which keys stand twice: `1` and `01` are one key, as are `yes` and `true`. What `<<` brings may be written anew."""
        seen: dict[Any, yaml.Node] = {}
        for key, _ in mapping.value:
            value = key.value if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key, deep=True)
            try:
                first = seen.setdefault(value, key)
            except TypeError:  # a list or a mapping: the constructor refuses it
                continue
            if first is not key:
                same = "" if first.value == key.value else f", written {_short(key.value)}"
                lines = first.start_mark.line + 1, key.start_mark.line + 1
                yield f"the key {_short(first.value)} is in line {lines[0]} and again in line {lines[1]}{same}; keep one of them"

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return an integer, in which a zero at the beginning means nothing."""
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text) if text.lstrip("+-").isdecimal() else int(text, 0)


class _AsDvc(_Loader):
    """Reads what DVC writes, and params.yaml as DVC compares it."""


class _Texts(_Loader):
    """Takes every value for a text."""


# What ruamel.yaml, and so DVC, takes for a number: YAML 1.1 wants a dot and a sign in 1e-4, and has octal and sexagesimal numbers.
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))\Z"
)
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")


def _teach(loader: Any, tags: dict[str, tuple[re.Pattern[str], str]]) -> None:
    """Let a loader know plain scalars of these types by the patterns alone; each with the characters that begin one."""
    names = {f"tag:yaml.org,2002:{kind}" for kind in tags}
    known = loader.yaml_implicit_resolvers.items()
    loader.yaml_implicit_resolvers = {first: [pair for pair in pairs if pair[0] not in names] for first, pairs in known}
    for kind, (pattern, first) in tags.items():
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", pattern, first)


_NUMBERS = {"int": (_INT, "-+0123456789"), "float": (_FLOAT, "-+.0123456789")}
_teach(_Loader, _NUMBERS)
_teach(_AsDvc, {**_NUMBERS, "bool": (_BOOL, "tTfF")})
_Texts.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)  # of all three


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """Yield every mapping of a document once, however often aliases name it."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [part for pair in reversed(node.value) for part in reversed(pair)]
        else:
            waiting += reversed(node.value)


def _refuse_bombs(text: str) -> None:
    """Count, before anything is built, how deep a document is and what its aliases would make of it.

    Raises:
        yaml.YAMLError: it is too deep, an alias names what holds it, or aliases repeat too much.
    """
    sizes: dict[str, int | None] = {}  # of what an anchor names; None while it is open
    inside: list[tuple[str | None, int]] = []  # the anchor of each open list or mapping, and the nodes before it
    nodes = repeated = 0
    for event in yaml.parse(text, Loader=_SAFE):
        told = ""
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 0)  # an unknown one is refused later, by name
            if size is None:
                told = f"the alias *{event.anchor} names what holds it"
            nodes, repeated = nodes + (size or 0), repeated + (size or 0)
            if repeated > REPEATED:
                told = f"aliases repeat more than {REPEATED:,} values; write them out, or fewer"
        elif isinstance(event, yaml.CollectionStartEvent):
            inside.append((event.anchor, nodes))
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = None
            if len(inside) > DEPTH:
                told = f"lists and mappings are nested more than {DEPTH} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if told:
            mark: Any = event.start_mark
            raise yaml.composer.ComposerError(None, None, told, mark)


def _short(value: object) -> str:
    return repr(shorten(value if isinstance(value, str) else type(value).__name__, 60))
