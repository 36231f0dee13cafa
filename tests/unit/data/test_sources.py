"""Checks of every source: each module of components/data/snapshot/sources passes the same tests."""

import inspect
import random
import subprocess
import sys
from pathlib import Path

import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import BadInput, BadParams, BadSource
from components.data.snapshot import SnapshotParams, describe_source, sources, take_snapshot
from tests.support.sources import Row, SourceCase, create_source, missing_source
from tests.support.sources.hub import COMMIT

FOLDER = Path(sources.__file__).parent
COLUMNS = ("id", "text", "label")
ROWS: list[Row] = [(f"i{number}", f"text nümber {number}" if number % 5 else None, "ab"[number % 2]) for number in range(20)]

every_source = pytest.mark.parametrize("source", sources.available())


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A folder outside the project."""
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


def take(root: Path, case: SourceCase, monkeypatch: pytest.MonkeyPatch, **more: object) -> SnapshotManifest:
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    source = case.settings["source"]
    settings = {**case.settings, "source": source if "://" in source else str(root / "away" / source), **more}
    return take_snapshot(root, root / "raw", snapshot=SnapshotParams.parse(settings, "snapshot"), required=("text", "label"))


def manifest_source(source: str, case: SourceCase) -> str:
    """Return the source in the manifest: the address, with the commit of a branch."""
    if source == "files":
        return f"away/{case.settings['source']}"
    return case.settings["source"].replace("@main", f"@{COMMIT}")


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_module_is_found_by_name_and_has_a_case():
    names = {path.stem for path in FOLDER.glob("[!_]*.py")}

    assert set(sources.available()) == names == {path.stem for path in Path("tests/support/sources").glob("[!_]*.py")} != set()


@every_source
def test_source_implements_the_protocol_and_documents_errors(source: str) -> None:
    module = sources.load(source)

    assert set(SnapshotParams.model_fields) >= module.SETTINGS
    for name in ("fetch", "describe"):
        function, protocol = getattr(module, name), getattr(sources.Source, name)
        assert list(inspect.signature(function).parameters) == list(inspect.signature(protocol).parameters)[1:]
        assert "aise" in inspect.getdoc(function)
    assert inspect.getdoc(module).startswith(f"{source}://" if source != sources.NO_SCHEME else "Local files")


@pytest.mark.slow
def test_finding_a_source_imports_no_driver():
    code = (
        "import sys; from components.data.snapshot import SnapshotParams, sources;"
        "[sources.source_of(SnapshotParams(source=s)) for s in ('a.csv', 's3://b/c', 'sql://d', 'hub://e/f@g')];"
        "sys.exit(' '.join({'sqlalchemy', 'boto3', 'botocore', 'huggingface_hub'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@every_source
def test_same_rows_give_the_same_snapshot_from_any_source(source: str, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = take(tmp_path, create_source("files", away, COLUMNS, ROWS), monkeypatch)
    before = bytes_below(tmp_path / "raw")

    assert take(tmp_path, create_source(source, away, COLUMNS, random.Random(3).sample(ROWS, len(ROWS))), monkeypatch) == first
    assert bytes_below(tmp_path / "raw") == before

    case = create_source(source, away, COLUMNS, [*ROWS, ("i20", "one more", "a")])
    manifest = take(tmp_path, case, monkeypatch)

    assert manifest.rows == 21
    assert manifest.source == manifest_source(source, case)
    assert read_snapshot(tmp_path / "raw")["text"].isna().sum() == 4
    assert set(bytes_below(tmp_path / "raw")) == {"manifest.json", *(part.name for part in manifest.parts)}
    assert not list(tmp_path.glob(".raw*"))


@pytest.mark.slow
@every_source
def test_description_names_size_or_columns(source: str, away: Path) -> None:
    case, empty = create_source(source, away, COLUMNS, ROWS), missing_source(source, away)

    description = describe_source(away, snapshot=SnapshotParams.parse(case.settings, "snapshot"), environment=case.environment)

    assert "MiB" in description or ", ".join(COLUMNS) in description
    with pytest.raises(BadInput):
        describe_source(away, snapshot=SnapshotParams.parse(empty.settings, "snapshot"), environment=empty.environment)


@every_source
def test_bad_source_is_refused_and_keeps_the_snapshot(source: str, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = create_source(source, away, COLUMNS, ROWS)
    take(tmp_path, case, monkeypatch)
    before = bytes_below(tmp_path / "raw")

    with pytest.raises(BadSource, match=r"column 'priority', mapped to label in snapshot\.columns, is missing") as caught:
        take(tmp_path, case, monkeypatch, columns={"label": "priority"})
    assert manifest_source(source, case) in str(caught.value)
    with pytest.raises(BadInput) as caught:
        take(tmp_path, missing_source(source, away), monkeypatch)
    assert missing_source(source, away).settings["source"] in str(caught.value)

    assert bytes_below(tmp_path / "raw") == before
    assert not list(tmp_path.glob(".raw*"))
    assert not (away / "none.db").exists()


@pytest.mark.slow
@every_source
def test_ctrl_c_leaves_no_files(source: str, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = create_source(source, away, COLUMNS, ROWS)
    take(tmp_path, create_source("files", away, COLUMNS, ROWS[1:]), monkeypatch)
    before = bytes_below(tmp_path / "raw")
    monkeypatch.setattr("components.data.snapshot.take._REPORT_EVERY", 5)
    settings = SnapshotParams.parse(case.settings, "snapshot")

    def interrupt(rows: int) -> None:
        assert list(tmp_path.glob(".raw*"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_snapshot(away, tmp_path / "raw", snapshot=settings, progress=interrupt, environment=case.environment)

    assert bytes_below(tmp_path / "raw") == before
    assert not list(tmp_path.glob(".raw*"))


# Choice of the source


def test_unknown_scheme_is_refused_without_the_address():
    with pytest.raises(BadParams, match=r"starts with postgresql://.*hub://, s3://, sql://.* \(a database is sql://NAME\)") as caught:
        sources.source_of(SnapshotParams(source="postgresql://me:hush@host/tickets"))
    assert "hush" not in str(caught.value)
    for address in ("files://rows.csv", "../take://rows", "_choosing://rows"):
        with pytest.raises(BadParams, match="expected a file, glob or folder, or an address"):
            sources.source_of(SnapshotParams(source=address))


@pytest.mark.parametrize("address", ["rows.csv", "s3://bucket/rows", "hub://acme/tickets@main"])
def test_query_for_another_source_is_refused(address: str) -> None:
    with pytest.raises(BadParams, match=r"snapshot\.query needs a snapshot\.source that starts with sql://"):
        sources.source_of(SnapshotParams(source=address, query="SELECT 1"))


def test_query_is_dropped_for_another_scheme():
    settings = SnapshotParams(source="sql://tickets", query="SELECT 1")

    assert settings.at("sql://other").query == "SELECT 1"
    assert settings.at("regression.csv").query is None
    assert SnapshotParams(source="a.csv", encoding="cp1252").at("b.csv").encoding == "cp1252"
