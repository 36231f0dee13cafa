"""What holds for every kind of source: each file of components/data/snapshot/sources is found, and asked the same."""

import inspect
import random
import subprocess
import sys
from pathlib import Path

import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import BadInput, BadParams, BadSource
from components.data.snapshot import SnapshotParams, look_at, sources, take_snapshot
from tests.support.sources import Place, Row, nowhere, put
from tests.support.sources.hub import COMMIT

FOLDER = Path(sources.__file__).parent
COLUMNS = ("id", "text", "label")
ROWS: list[Row] = [(f"i{number}", f"text nümber {number}" if number % 5 else None, "ab"[number % 2]) for number in range(20)]

every_source = pytest.mark.parametrize("source", sources.available())


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A folder that is not the project's."""
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


def take(root: Path, place: Place, monkeypatch: pytest.MonkeyPatch, **more: object) -> SnapshotManifest:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    source = place.settings["source"]
    settings = {**place.settings, "source": source if "://" in source else str(root / "away" / source), **more}
    return take_snapshot(root, root / "raw", snapshot=SnapshotParams.parse(settings, "snapshot"), required=("text", "label"))


def known_as(source: str, place: Place) -> str:
    """Return what the manifest calls the place: its address, with the commit of a branch."""
    if source == "files":
        return f"away/{place.settings['source']}"
    return place.settings["source"].replace("@main", f"@{COMMIT}")


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_file_is_a_source_found_by_name_and_has_a_case():
    names = {path.stem for path in FOLDER.glob("[!_]*.py")}

    assert set(sources.available()) == names == {path.stem for path in Path("tests/support/sources").glob("[!_]*.py")} != set()


@every_source
def test_every_source_offers_what_the_protocol_asks_for_and_says_what_it_raises(source: str) -> None:
    found = sources.load(source)

    assert set(SnapshotParams.model_fields) >= found.SETTINGS
    for name in ("bring", "look"):
        ours, wanted = getattr(found, name), getattr(sources.Source, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(wanted).parameters)[1:]
        assert "aise" in inspect.getdoc(ours)
    assert inspect.getdoc(found).startswith(f"{source}://" if source != sources.NO_SCHEME else "Local files")


def test_finding_a_source_loads_no_driver_and_no_client():
    code = (
        "import sys; from components.data.snapshot import SnapshotParams, sources;"
        "[sources.source_of(SnapshotParams(source=s)) for s in ('a.csv', 's3://b/c', 'sql://d', 'hub://e/f@g')];"
        "sys.exit(' '.join({'sqlalchemy', 'boto3', 'botocore', 'huggingface_hub'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@every_source
def test_the_same_rows_are_the_same_snapshot_wherever_they_lie_and_in_whichever_order(
    source: str, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take(tmp_path, put("files", away, COLUMNS, ROWS), monkeypatch)
    before = bytes_below(tmp_path / "raw")

    assert take(tmp_path, put(source, away, COLUMNS, random.Random(3).sample(ROWS, len(ROWS))), monkeypatch) == first
    assert bytes_below(tmp_path / "raw") == before

    place = put(source, away, COLUMNS, [*ROWS, ("i20", "one more", "a")])
    manifest = take(tmp_path, place, monkeypatch)

    assert manifest.rows == 21
    assert manifest.source == known_as(source, place)
    assert read_snapshot(tmp_path / "raw")["text"].isna().sum() == 4
    assert set(bytes_below(tmp_path / "raw")) == {"manifest.json", *(part.name for part in manifest.parts)}
    assert not list(tmp_path.glob(".raw*"))


@every_source
def test_a_glance_tells_what_is_there(source: str, away: Path) -> None:
    place, empty = put(source, away, COLUMNS, ROWS), nowhere(source, away)

    said = look_at(away, snapshot=SnapshotParams.parse(place.settings, "snapshot"), environment=place.environment)

    assert "MiB" in said or ", ".join(COLUMNS) in said
    with pytest.raises(BadInput):
        look_at(away, snapshot=SnapshotParams.parse(empty.settings, "snapshot"), environment=empty.environment)


@every_source
def test_what_is_no_such_table_is_refused_by_its_address_and_the_earlier_snapshot_stays(
    source: str, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = put(source, away, COLUMNS, ROWS)
    take(tmp_path, place, monkeypatch)
    before = bytes_below(tmp_path / "raw")

    with pytest.raises(BadSource, match=r"there is no column 'priority'.* snapshot\.columns gives as label") as caught:
        take(tmp_path, place, monkeypatch, columns={"label": "priority"})
    assert known_as(source, place) in str(caught.value)
    with pytest.raises(BadInput) as caught:
        take(tmp_path, nowhere(source, away), monkeypatch)
    assert nowhere(source, away).settings["source"] in str(caught.value)

    assert bytes_below(tmp_path / "raw") == before
    assert not list(tmp_path.glob(".raw*"))
    assert not (away / "none.db").exists()


@every_source
def test_ctrl_c_leaves_nothing_behind(source: str, tmp_path: Path, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put(source, away, COLUMNS, ROWS)
    take(tmp_path, put("files", away, COLUMNS, ROWS[1:]), monkeypatch)
    before = bytes_below(tmp_path / "raw")
    monkeypatch.setattr("components.data.snapshot.take._REPORT_EVERY", 5)
    settings = SnapshotParams.parse(place.settings, "snapshot")

    def interrupt(rows: int) -> None:
        assert list(tmp_path.glob(".raw*"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take_snapshot(away, tmp_path / "raw", snapshot=settings, progress=interrupt, environment=place.environment)

    assert bytes_below(tmp_path / "raw") == before
    assert not list(tmp_path.glob(".raw*"))


# Which source it is


def test_an_unknown_kind_of_source_is_refused_with_the_list_and_without_the_address():
    with pytest.raises(
        BadParams, match=r"begins with postgresql://.*hub://, s3://, sql:// \(a database is named as sql://NAME\)"
    ) as caught:
        sources.source_of(SnapshotParams(source="postgresql://me:hush@host/tickets"))
    assert "hush" not in str(caught.value)
    for address in ("files://rows.csv", "../take://rows", "_choosing://rows"):
        with pytest.raises(BadParams, match="expected a file, a glob or a folder, or an address"):
            sources.source_of(SnapshotParams(source=address))


@pytest.mark.parametrize("address", ["rows.csv", "s3://bucket/rows", "hub://acme/tickets@main"])
def test_a_query_for_another_kind_of_source_is_refused(address: str) -> None:
    with pytest.raises(BadParams, match=r"snapshot\.query goes with a snapshot\.source that begins with sql://"):
        sources.source_of(SnapshotParams(source=address, query="SELECT 1"))


def test_the_query_stays_with_its_kind_of_source():
    asked = SnapshotParams(source="sql://tickets", query="SELECT 1")

    assert asked.at("sql://other").query == "SELECT 1"
    assert asked.at("regression.csv").query is None
    assert SnapshotParams(source="a.csv", encoding="cp1252").at("b.csv").encoding == "cp1252"
