"""Every command as a person types it, and bad input: one message, an exit code, and everything that stood before untouched."""

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.core.hashing import digest_file
from components.steps import STAGES
from flows.cli import app
from flows.project.params import read_params
from tests.support.project import BIN, edit, environment, make_project, retune, status

slow = pytest.mark.slow
LONG = "long " * 20_000
MAKING = ("init", "auto", "leaderboard", "snapshot", "run", "judge", "register", "predict", "pseudo-label", "score", "status", "doctor")
ASKING = ("history", "champion", "why", "diff", "lineage", "verify", "rebuild", "prune")
DESCRIBING = ("tasks", "convert")
USING = ("serve",)
SCHEDULING = ("retrain", "workspace", "deploy", "up", "down", "migrate")
PROMOTING = ("promote", "rollback", "approve", "reject", "reconcile")
COMMANDS = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback]


def test_every_command_is_in_a_group() -> None:
    assert set(COMMANDS) == {*MAKING, *DESCRIBING, *USING, *ASKING, *PROMOTING, *SCHEDULING}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, [command, "--help"])

    assert result.exit_code == 0
    assert re.search(rf"Example: .*retune {command}\b", result.output)
    assert ("--params" in result.output) is (command in MAKING)


def test_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["trian"]).exit_code == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A project with a champion. A test that changes it restores it."""
    folder = make_project(tmp_path_factory.mktemp("cli") / "project", tiny_base, tickets)
    done = retune(folder, "run", "--inline")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """The finished project; the files that a user edits are restored."""
    for name in ("params.yaml", "tickets.csv"):
        shutil.copy(finished / name, tmp_path / name)
    shutil.copytree(finished / "base-model", tmp_path / "base-model")
    yield finished
    for name in ("params.yaml", "tickets.csv"):
        shutil.copy(tmp_path / name, finished / name)
    shutil.rmtree(finished / "base-model", ignore_errors=True)
    shutil.copytree(tmp_path / "base-model", finished / "base-model")


def registry(folder: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the aliases and the versions, read without MLflow."""
    store = sqlite3.connect(f"file:{folder / 'var/mlflow.db'}?mode=ro", uri=True)
    try:
        aliases = store.execute("select name, alias, version from registered_model_aliases order by alias").fetchall()
        return aliases, store.execute("select name, version from model_versions order by version").fetchall()
    finally:
        store.close()


def state_of(folder: Path, failed_in: str = "") -> dict[str, object]:
    """Return the state that a failed run must not change: champion, page, models, and the lock of the failed and later stages."""
    files = [path for part in ("models", "reports") for path in sorted((folder / part).rglob("*")) if path.is_file()]
    assert {"index.html", "verdict.json", "model.safetensors"} <= {path.name for path in files}
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    locked = {stage: lock[stage] for stage in STAGES[STAGES.index(failed_in or STAGES[0]) :]}
    return {str(path): digest_file(path) for path in files} | {"lock": locked, "registry": registry(folder)}


@slow
def test_status_json_is_complete(finished: Path) -> None:
    state = status(finished)

    assert set(state) >= {"model", "version", "alias", "metrics", "verdict", "run_key"}
    assert (state["model"], state["version"], state["alias"], state["verdict"]) == ("tickets", 1, "champion", "PASS")
    assert {"value", "low", "high"} <= set(state["metrics"]["macro_f1"])
    assert state["run_key"]


@slow
def test_status_for_a_person_shows_intervals(finished: Path) -> None:
    output = retune(finished, "status").stdout

    assert "the champion is version 1" in output
    assert re.search(r"macro_f1 +0\.\d{3} \(95 % interval 0\.\d{3}–[01]\.\d{3}\)", output)


@slow
def test_predict_reads_texts_from_stdin(finished: Path) -> None:
    texts = "refund of my invoice payment\nthe router is offline, slow wifi\n"
    command = [str(BIN / "retune"), "predict", "-", "--json"]
    surroundings = environment(finished, forks=True)
    done = subprocess.run(command, cwd=finished, env=surroundings, input=texts, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["text"] for answer in answers] == texts.splitlines()
    assert answers[0]["label"] == "billing"
    assert all(sum(answer["probabilities"].values()) == pytest.approx(1) for answer in answers)


@slow
def test_predict_reports_a_missing_alias(finished: Path) -> None:
    done = retune(finished, "predict", "x", "--version", "challenger")

    assert done.returncode == 1
    assert "tickets has no challenger" in done.stderr


@slow
def test_judge_exit_code_is_the_outcome(project: Path) -> None:
    reused, again = retune(project, "judge"), retune(project, "judge", "--again")
    assert (reused.returncode, again.returncode) == (0, 0)
    assert "the verdict of an earlier run is still valid: PASS; `retune judge --again` judges again" in reused.stderr
    assert "gate floor (required): PASS" in again.stderr
    assert "gate floor" not in reused.stderr

    edit(project, {"gates": {"servability": {"role": "required", "max_seconds": 0.01}}})
    for message in ("gate servability (required): INCONCLUSIVE", "was undecided for a temporary reason: "):
        late = retune(project, "judge")
        assert (late.returncode, message in late.stderr) == (4, True), late.stderr

    edit(project, {"gates": {"floor": {"at_least": status(project)["metrics"]["accuracy"]["value"]}}})
    undecided = retune(project, "judge", "--json")
    assert undecided.returncode == 4, undecided.stderr
    assert json.loads(undecided.stdout)["outcome"] == "INCONCLUSIVE"

    edit(project, {"gates": {"baseline": {"margin": 0.95}}})
    failed = retune(project, "judge")
    assert failed.returncode == 3, failed.stderr
    assert "gates.baseline.margin 0.95" in failed.stdout
    assert status(project)["version"] == 1


@slow
def test_registering_twice_gives_the_same_version(project: Path) -> None:
    before = registry(project)
    first, second = (json.loads(retune(project, "register", "--json").stdout) for _ in range(2))

    assert first == second
    assert {name: first[name] for name in ("model", "version", "created")} == {"model": "tickets", "version": 1, "created": False}
    assert registry(project) == before


@slow
def test_failed_version_is_promoted_only_by_force(project: Path) -> None:
    edit(project, {"gates": {"baseline": {"margin": 0.95}}})
    assert retune(project, "judge").returncode == 3

    refused = retune(project, "promote", "tickets", "1")
    assert refused.returncode == 2
    assert "the verdict on tickets version 1 is FAIL" in refused.stderr
    assert "--force --why" in refused.stderr
    assert registry(project)[0] == [("tickets", "champion", 1)]

    assert "already the champion" in retune(project, "promote", "tickets", "1", "--force", "--why", "a test").stdout


@slow
def test_moved_alias_is_reported_and_repaired(project: Path) -> None:
    client = MlflowClient(f"sqlite:///{project / 'var/mlflow.db'}", f"sqlite:///{project / 'var/mlflow.db'}")
    client.delete_registered_model_alias("tickets", "champion")

    assert "retune reconcile" in retune(project, "status").stdout
    assert retune(project, "reconcile").returncode == 0
    assert registry(project)[0] == [("tickets", "champion", 1)]


@slow
def test_other_data_can_be_pinned_without_a_run(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    tickets.head(120).to_json(folder / "half.jsonl", orient="records", lines=True)
    done = retune(folder, "snapshot", "half.jsonl")

    assert done.returncode == 0, done.stderr
    assert "data: 120 rows from half.jsonl" in done.stdout
    assert json.loads((folder / "data/raw/manifest.json").read_text(encoding="utf-8"))["rows"] == 120
    assert (folder / "data/raw.dvc").exists()
    assert (folder / "data/base.dvc").exists()


@slow
def test_init_writes_settings_that_a_run_accepts(finished: Path, tmp_path: Path, tickets: pd.DataFrame) -> None:
    tickets.rename(columns={"text": "what", "label": "topic"}).to_csv(tmp_path / "new tickets.csv", index=False, sep=";")
    done = retune(finished, "init", str(tmp_path / "new tickets.csv"), "--params", str(tmp_path / "new/params.yaml"))

    assert done.returncode == 0, done.stderr
    params = read_params(tmp_path / "new/params.yaml")
    assert params.name == "new-tickets"
    assert params.snapshot.columns == {"text": "what", "label": "topic", "id": "id", "group": "group"}
    assert (tmp_path / "new" / params.snapshot.source).resolve() == tmp_path / "new tickets.csv"
    again = retune(finished, "init", str(tmp_path / "new tickets.csv"), "--params", str(tmp_path / "new/params.yaml"))
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr


def data(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Rewrite the data file with other rows or columns."""

    def spoil(folder: Path) -> None:
        change(pd.read_csv(folder / "tickets.csv", dtype=str)).to_csv(folder / "tickets.csv", index=False)

    return spoil


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Rewrite the data file byte by byte."""

    def spoil(folder: Path) -> None:
        (folder / "tickets.csv").write_bytes(change((folder / "tickets.csv").read_bytes()))

    return spoil


def params(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, changes)


def two_of_a_kind(folder: Path) -> None:
    edit(folder, {"validate": {"min_rows_per_class": 1}})
    data(lambda rows: rows.assign(label=["refund", "refund", *rows["label"][2:]]))(folder)


def only_pickle(folder: Path) -> None:
    (folder / "base-model/model.safetensors").rename(folder / "base-model/pytorch_model.bin")


def without_padding(folder: Path) -> None:
    path = folder / "base-model/tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["pad_token"]
    path.write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")


@dataclass(frozen=True)
class Bad:
    """A wrong input, and the parts that its message must contain."""

    name: str
    spoil: Callable[[Path], None]
    parts: list[str]
    stage: str = ""  # the stage that reports it; empty: reported before the stages


BAD = [
    Bad("a file that is not there", params(snapshot={"source": "ticket.csv"}), ["ticket.csv: no such file", "did you mean 'tickets.csv'"]),
    Bad("an empty file", raw(lambda _: b""), ["tickets.csv", "the file is empty"]),
    Bad("a header only", raw(lambda old: old.partition(b"\n")[0] + b"\n"), ["tickets.csv", "a header and no rows"]),
    Bad(
        "a missing column",
        data(lambda rows: rows.rename(columns={"label": "labels"})),
        ["the required column 'label' is missing", "did you mean 'labels'"],
    ),
    Bad("a column twice", raw(lambda old: old.replace(b"id,text", b"text,text", 1)), ["'text' more than once (columns 1, 2)"]),
    Bad("another delimiter", raw(lambda old: old.replace(b",", b";")), ["set snapshot.delimiter: ';'"]),
    Bad("not UTF-8", raw(lambda old: old + b"t900,caf\xe9 bill,billing\n"), ["row 241 (line 242), byte {at}", "0xe9 is not utf-8"]),
    Bad("a NUL byte", raw(lambda old: old + b"t900,a\0b,billing\n"), ["row 241 (line 242)", "a NUL byte"]),
    Bad(
        "one class only", data(lambda rows: rows.assign(label="billing")), ["at least two different labels", "'billing' (240)"], "validate"
    ),
    Bad("a class with fewer groups than splits", two_of_a_kind, ["'refund' has 2 groups (2 rows), expected at least 3"], "preprocess"),
    Bad("all texts empty", data(lambda rows: rows.assign(text="")), ["240 of 240", "text is empty"], "validate"),
    Bad(
        "all texts equal",
        data(lambda rows: rows.assign(text="help me")),
        ["more than one different text", "'help me' in all 240 rows"],
        "validate",
    ),
    Bad(
        "numbers among labels",
        data(lambda rows: rows.replace({"label": {"billing": "7"}})),
        ["validate.numeric_labels: allow", "'7' (81)"],
        "validate",
    ),
    Bad(
        "an unknown setting", params(train={"learning_rat": 1e-4}), ["train.learning_rat is not a setting", "did you mean 'learning_rate'"]
    ),
    Bad("an unknown section", params(trian={}), ["trian is not a setting", "did you mean 'train'"]),
    Bad("a wrong type", params(preprocess={"max_length": "many"}), ["preprocess.max_length", "'many'"]),
    Bad("tuned, and nothing to tune by", params(train={"batch_size": "tuned"}), ["train.batch_size is set to `tuned`", "tune.space"]),
    Bad("no text can pass", params(validate={"min_characters": 30_000}), ["min_characters 30000 is more than max_characters 20000"]),
    Bad(
        "longer than the model reads",
        params(preprocess={"max_length": 4096}),
        ["preprocess.max_length is 4096", "at most 64 tokens"],
        "preprocess",
    ),
    Bad("no trials", params(tune={"trials": 0}), ["tune.trials", "greater than or equal to 1", "found 0"]),
    Bad("no base model", params(base={"model": "./no-model"}), ["base.model ./no-model", "no-model is missing"]),
    Bad("a base model in pickle", only_pickle, ["base.model base-model", "only pytorch_model.bin", "loads only safetensors"]),
    Bad("a tokenizer without padding", without_padding, ["no padding token", "tokenizer_config.json"]),
]


# One case for each check; the unit tests of each check contain more cases.
PLACES = (
    "a file that is not there",
    "a missing column",
    "not UTF-8",
    "one class only",
    "an unknown setting",
    "a base model in pickle",
)


CASES = [pytest.param(bad, id=bad.name.replace(" ", "-"), marks=[] if bad.name in PLACES else [pytest.mark.exhaustive]) for bad in BAD]


@slow
@pytest.mark.parametrize("bad", CASES)
def test_bad_input_gives_one_message(project: Path, bad: Bad) -> None:
    before, at = state_of(project, bad.stage), (project / "tickets.csv").stat().st_size + len("t900,caf")
    bad.spoil(project)
    done = retune(project, "run", "--inline")

    output = done.stdout + done.stderr
    assert [part for part in bad.parts if part.format(at=at) not in done.stderr] == [], output
    assert "Traceback" not in output, output
    assert state_of(project, bad.stage) == before
    messages = re.findall("^error: ", output, re.MULTILINE)
    assert (done.returncode, len(messages)) == (2, 1), output


@slow
def test_second_run_is_up_to_date(project: Path) -> None:
    assert retune(project, "run", "--inline").returncode == 0  # other tests have judged under other gates, and stopped midway
    done = retune(project, "run", "--inline")

    assert done.returncode == 0, done.stderr
    assert "the champion is version 1" in done.stdout
    assert "up to date" in done.stdout


@slow
@pytest.mark.exhaustive
def test_very_long_text_is_quarantined(project: Path) -> None:
    with (project / "tickets.csv").open("a", encoding="utf-8") as file:
        file.write(f"t900,{LONG},billing\n")
    before = state_of(project)
    done = retune(project, "run", "--inline")

    assert done.returncode == 0, done.stderr
    (row,) = pd.read_parquet(project / "data/validated/quarantine.parquet").to_dict(orient="records")
    assert (row["id"], len(row["text"])) == ("t900", 100_000)
    assert row["reason"] == "text has more than 20000 characters (validate.max_characters)"
    weights = str(project / "models/trained/model/model.safetensors")
    assert state_of(project)[weights] == before[weights]  # the training rows did not change
