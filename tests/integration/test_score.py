"""`retune score`: killed and resumed, into a folder and into a database, and as a flow."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from components.artifacts.predictions import Predictions
from components.core.errors import BadData, BadInput, BadParams, BadSource, NotFound, Unavailable
from components.data.snapshot import SnapshotParams
from components.serving import batch
from components.serving.batch import ScoringSettings
from flows.batch_scoring import scoring
from flows.project.workspace import Workspace
from tests.support.project import BIN, ROOT, environment, retune, started, wait_for
from tests.support.registered import make_shop

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]

ROWS, PART = 2_400, 100
SHORT = ScoringSettings(rows_per_part=PART)
OPTIONS = ("--rows-per-part", str(PART))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_shop(folder, tiny_base, tickets, versions=2)
    texts = tickets["text"].tolist() * (ROWS // len(tickets))
    pq.write_table(pa.table({"id": list(range(ROWS)), "text": texts}), folder / "rows.parquet")
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO orders VALUES (?, ?)", reversed(list(enumerate(texts))))
    connection.close()
    return folder


@pytest.fixture
def workspace(project: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(project)
    monkeypatch.setenv("RETUNE_SQL_SHOP", f"sqlite:///{project / 'shop.db'}")
    return Workspace(project, project, project / "params.yaml")


@pytest.fixture(scope="module")
def whole(project: Path, forks: None) -> Path:
    """The rows, scored without interruption."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(project)
        scoring.score(Workspace(project, project, project / "params.yaml"), "rows.parquet", "whole", "tickets@champion", SHORT)
    return project / "whole"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return retune(project, "score", *arguments, PYTHONPATH=str(ROOT), RETUNE_SQL_SHOP=f"sqlite:///{project / 'shop.db'}")


@contextlib.contextmanager
def halted(project: Path, happened: Callable[[], bool], arguments: Sequence[str]) -> Iterator[None]:
    """Start the command, suspend it once `happened` returns true, and kill it at the end."""
    surroundings = environment(project, PYTHONPATH=str(ROOT), RETUNE_SQL_SHOP=f"sqlite:///{project / 'shop.db'}")
    command = [str(BIN / "retune"), "score", *arguments]
    with started(command, cwd=project, env=surroundings, stderr=subprocess.DEVNULL) as running:
        wait_for(lambda: happened() or running.poll() is not None, every=0.002)
        assert running.poll() is None
        running.send_signal(signal.SIGSTOP)
        yield


def test_killed_scoring_resumes_with_the_same_bytes(project: Path, workspace: Workspace, whole: Path) -> None:
    out = project / "torn"
    arguments = ("rows.parquet", "torn", "--model", "tickets@champion", *OPTIONS)
    with (
        halted(project, (out / "part-00004.parquet").exists, arguments),
        pytest.raises(Unavailable, match="torn: another process is scoring into this folder"),
    ):
        scoring.score(workspace, "rows.parquet", "torn", "tickets@champion", SHORT)
    done = len((out / "parts.jsonl").read_text().splitlines())
    assert 4 <= done < ROWS // PART
    assert not (out / "manifest.json").exists()
    (out / "part-00099.parquet.partial").write_text("truncated")
    for settings, message in (
        (ScoringSettings(7), "torn was started with rows_per_part 100"),
        (ScoringSettings(PART, prefix="p_"), "prefix ''"),
    ):
        with pytest.raises(BadInput, match=message):
            scoring.score(workspace, "rows.parquet", "torn", "tickets@champion", settings)

    again = command(project, *arguments)

    assert again.returncode == 0, again.stderr
    assert f"{done * PART:,} of 2,400 rows are finished; continuing" in again.stderr
    assert "torn: 2,400 of 2,400 rows scored by models:/tickets/1 in 24 parts" in again.stdout
    assert content(out) == content(whole)
    with pytest.raises(BadInput, match="torn is complete: 2,400 rows scored by models:/tickets/1; pass --replace to start again"):
        scoring.score(workspace, "rows.parquet", "torn", "tickets@champion", SHORT)


def test_rows_keep_their_order_and_have_evaluated_answers(project: Path, whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    table = pq.read_table([whole / part["name"] for part in manifest["parts"]])
    evaluated = Predictions.read(project / "workspace0/reports/evaluation/predictions/candidate.parquet")  # of the first 60 tickets
    answered = [[dict(cell)[label] for label in evaluated.labels] for cell in table.column("probabilities").slice(0, 60).to_pylist()]

    assert table.column("id").to_pylist() == list(range(ROWS))
    assert np.allclose(answered, evaluated.probabilities, atol=1e-6)  # float32, other batches
    assert table.column("label").slice(0, 60).to_pylist() == evaluated.predicted.tolist()
    assert table.column("probability").slice(0, 60).to_pylist() == np.max(answered, axis=1).tolist()
    assert table.slice(240, 60).drop_columns("id").equals(table.slice(480, 60).drop_columns("id"))
    assert (manifest["rows"], manifest["scored"], manifest["quarantined"]) == (ROWS, ROWS, 0)
    assert (manifest["model_uri"], manifest["version"], len(manifest["package"])) == ("models:/tickets/1", 1, 64)


def finished_rows(project: Path) -> int:
    """Return the number of finished rows in the database."""
    try:
        with sqlite3.connect(f"file:{project / 'shop.db'}?mode=ro", uri=True) as connection:
            row = connection.execute("SELECT rows_done FROM retune_scores WHERE written = 'scored'").fetchone()
        connection.close()
    except sqlite3.OperationalError:
        return 0
    return int(row[0]) if row else 0


@pytest.mark.exhaustive
def test_killed_scoring_into_a_table_keeps_rows_and_version(project: Path, workspace: Workspace, whole: Path) -> None:
    with halted(project, lambda: finished_rows(project) >= 300, ("sql://shop/orders", "sql://shop/scored", *OPTIONS)):
        pass
    client = MlflowClient(f"sqlite:///{project / 'var/mlflow.db'}")
    client.set_registered_model_alias("tickets", "champion", "2")
    moved = (
        "scored was started with models:/tickets/1, but tickets is version 2 now: "
        "pass --model-version tickets/1 to continue, or --replace to start again"
    )
    try:
        with pytest.raises(BadInput, match=moved):
            scoring.score(workspace, "sql://shop/orders", "sql://shop/scored", "", SHORT)
    finally:
        client.set_registered_model_alias("tickets", "champion", "1")
    assert 300 <= finished_rows(project) < ROWS

    scoring.score(workspace, "sql://shop/orders", "sql://shop/scored", "tickets/1", SHORT)

    with sqlite3.connect(project / "shop.db") as connection:
        rows = connection.execute("SELECT row_number, id, label, probability FROM scored ORDER BY row_number").fetchall()
    connection.close()
    parts = pq.read_table(sorted(whole.glob("part-*.parquet")))
    answers = zip(parts.column("label").to_pylist(), parts.column("probability").to_pylist(), strict=True)
    assert rows == [(number + 1, number, *answer) for number, answer in enumerate(answers)]


class InputChanging(batch.FolderTarget):
    """A folder target that changes the input when a part is written."""

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        super().add(numbers, scored, bad)
        Path("growing.csv").write_text("text\ninvoice\nrouter\nscreen\n", encoding="utf-8")


def test_input_changed_while_scoring_is_never_complete(workspace: Workspace) -> None:
    path = Path("growing.csv")
    path.write_text("text\ninvoice\nrouter\n", encoding="utf-8")
    source = batch.Files({path: path.name}, SnapshotParams(source="unused"), "growing.csv")
    with pytest.raises(BadSource, match=r"growing\.csv changed while it was scored; pass --replace to start again"):
        batch.score(
            f"sqlite:///{workspace.var / 'mlflow.db'}",
            "tickets",
            lambda: nullcontext(source),
            InputChanging(Path("grown")),
            ScoringSettings(1),
        )

    assert "manifest.json" not in content(Path("grown"))
    with pytest.raises(BadInput, match=r"growing\.csv differs from the input that grown was started with"):
        batch.score(
            f"sqlite:///{workspace.var / 'mlflow.db'}",
            "tickets",
            lambda: nullcontext(source),
            batch.FolderTarget(Path("grown")),
            ScoringSettings(1),
        )


BAD: Sequence[tuple[str, str, type[Exception], str]] = [
    ("text;x\na;b\n", "tickets", BadSource, "set snapshot.delimiter"),
    ("body\na\n", "tickets", BadInput, "bad.csv: expected the column 'text', found 'body'"),
    ("text,label\na,b\n", "tickets", BadInput, "bad.csv already has the column 'label'"),
    ("text\n", "tickets", BadSource, "bad.csv has no rows"),
    ("id,text\n1,a\n2,\n", "tickets", BadData, "bad.csv: row 2: 'text' is missing"),
    ("text\na\n", "tickets/9", NotFound, "tickets has no version 9; there are: 1, 2"),
    ("text\na\n", "other", NotFound, "other has no champion"),
]


@pytest.mark.parametrize(("text", "model", "error", "message"), BAD)
def test_bad_input_is_rejected_before_writing(workspace: Workspace, text: str, model: str, error: type[Exception], message: str) -> None:
    Path("bad.csv").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        scoring.score(workspace, "bad.csv", "bad", model, SHORT)

    assert not Path("bad").exists()


def test_missing_source_is_reported_without_params_yaml(workspace: Workspace) -> None:
    for source, error, message in (
        ("row.parquet", BadSource, r"row\.parquet: no such file or folder; did you mean 'rows\.parquet'"),
        ("ftp://host/rows", BadParams, "starts with ftp://; expected a file, glob or folder"),
        ("sql://shop", BadParams, "expected sql://NAME/TABLE"),
        ("sql://shop/order", BadSource, "sql://shop/order: table 'order' does not exist; did you mean 'orders'"),
    ):
        with pytest.raises(error, match=message) as raised:
            scoring.score(workspace, source, "out", "", SHORT)
        assert "snapshot" not in str(raised.value)
        assert "params.yaml" not in str(raised.value)


def test_input_is_never_replaced(workspace: Workspace, whole: Path) -> None:
    before = content(whole)
    for source, out in (("whole/part-*.parquet", "whole"), ("sql://shop/orders", "sql://shop/orders")):
        with pytest.raises(BadInput, match="is both input and output"):
            scoring.score(workspace, source, out, "", ScoringSettings(prefix="again_"), replace=True)
    with pytest.raises(BadInput, match=r"s3://…: expected a folder or sql://NAME/TABLE"):
        scoring.score(workspace, "rows.parquet", "s3://bucket/scored", "", SHORT)

    assert content(whole) == before


def test_bad_rows_are_quarantined_and_own_columns_used(project: Path, workspace: Workspace) -> None:
    rows: list[dict[str, Any]] = [{"description": "invoice"}, {"description": None}, {"description": 7}, {}, {"description": "router"}]
    Path("mixed.jsonl").write_text("".join(json.dumps(row | {"n": n}) + "\n" for n, row in enumerate(rows)), encoding="utf-8")
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["snapshot"]["columns"] = {"text": "description", "label": "topic"}
    (project / "own.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    own = Workspace(project, project, project / "own.yaml")

    manifest = scoring.score(own, "mixed.jsonl", "mixed", "", ScoringSettings(rows_per_part=2, on_bad_row="quarantine"))

    assert (manifest.rows, manifest.scored, manifest.quarantined) == (5, 2, 3)
    assert [part.rows for part in manifest.parts] == [1, 0, 1]
    assert pq.read_table(sorted(Path("mixed").glob("part-*.parquet"))).column("n").to_pylist() == ["0", "4"]
    quarantine = pq.read_table("mixed/quarantine.parquet")
    assert quarantine.column("quarantine_row").to_pylist() == [2, 3, 4]
    assert quarantine.column("quarantine_reason").to_pylist()[1] == "'text' is a number, expected text"


FLOW = """
from contextlib import nullcontext
from pathlib import Path
import sys
from flows.orchestrator import prefect_adapter
from flows.orchestrator.server import prefect_server
from flows.settings import Settings

with prefect_server(Path(sys.argv[1]), Settings(server_linger=1)) as url:
    prefect_adapter.configure(url, str(Path(sys.argv[1]) / "prefect"), deadline=60)
    from flows.batch_scoring.flow import score

    print(score("few.csv", "flow/{date}", columns={"text": "words"}, rows_per_part=2))
"""


@pytest.mark.exhaustive
def test_flow_fills_in_the_scheduled_date(project: Path, tmp_path: Path) -> None:
    (project / "few.csv").write_text("words\ninvoice\nrouter\nscreen\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", FLOW, str(tmp_path)],
        cwd=project,
        env=environment(project, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (out,) = (project / "flow").iterdir()

    assert done.stdout.splitlines()[-1] == f"flow/{out.name}: 3 of 3 rows scored by models:/tickets/1, 0 in quarantine"
    assert pd.Timestamp(out.name) <= pd.Timestamp.now("UTC").tz_localize(None)
    assert {path.name for path in out.iterdir()} == {"manifest.json", "part-00000.parquet", "part-00001.parquet"}
