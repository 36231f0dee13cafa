"""Several base models: each pinned and encoded by its own tokenizer, and selected by name or by the search."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from components.artifacts.manifest import BaseManifest, base_names
from components.artifacts.training import ModelSpec
from components.artifacts.tuning_result import BestTrial
from components.core.errors import BadParams
from components.data.base_model import BaseParams
from components.mlflow_store.registry import predict
from components.training.trainer.data import PreparedSplits
from flows.pipeline.lineage import lineage_of
from flows.project.params import read_params
from flows.project.workspace import Workspace
from tests.support import cases, pipeline
from tests.support.pipeline import Case
from tests.support.tiny import make_tiny_base

pytestmark = pytest.mark.slow

SPACE = {"base": {"type": "categorical", "choices": ["model", "small"]}}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("bases")
    (folder / "model").mkdir()
    (folder / "small").mkdir()
    made = cases.make("text_classification", folder / "model")
    make_tiny_base(folder / "small", ["screen", "invoice", "is", "the"])
    return made


def settings(case: Case, **changes: object) -> Case:
    """Return the case with a second base model, `small`, with a different vocabulary."""
    small = case.base.with_name("small")
    return Case(**{**vars(case), "changes": {**case.changes, "base": {"others": {"small": str(small)}}, **changes}})


@pytest.fixture(scope="module")
def searched(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A pipeline run whose search chose between the two, with its registered version."""
    tune = {"trials": 2, "train_fraction": 0.5, "initial_trial": {"base": "small"}, "space": SPACE}
    workspace, params = pipeline.open_line(tmp_path_factory.mktemp("line") / "project", settings(case, tune=tune), base="tuned")
    pipeline.prepare(workspace, params)
    pipeline.learn(workspace, params)
    pipeline.assess(workspace, params)
    return workspace, pipeline.enter(workspace, params)[0]


def test_each_base_is_pinned_and_encoded(searched: tuple[Workspace, str], case: Case) -> None:
    workspace = searched[0]
    small, learn = BaseManifest.read(workspace.base / "others/small"), workspace.root / "data/prepared/learn"

    assert base_names(workspace.base) == ["model", "small"]
    assert small.source == str(case.base.with_name("small"))
    assert small.digest != BaseManifest.read(workspace.base).digest
    main, second = PreparedSplits.read(learn), PreparedSplits.read(learn, "small")
    assert len(main.train) == len(second.train)
    assert [row["input_ids"] for row in second.train] != [row["input_ids"] for row in main.train]  # it lacks most of the words


@pytest.mark.exhaustive
def test_search_tries_both_bases_and_records_the_choice(searched: tuple[Workspace, str]) -> None:
    workspace, uri = searched
    best = BestTrial.read(workspace.root / "models/tuned")
    spec, vocabulary = (
        ModelSpec.read(workspace.model),
        json.loads((workspace.model / "config.json").read_text(encoding="utf-8"))["vocab_size"],
    )
    chosen = workspace.base if spec.base == "model" else workspace.base / "others/small"

    assert best.complete + best.pruned == 2
    assert spec.base == best.settings["base"]
    assert vocabulary == json.loads((chosen / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert len(predict(uri, "text_classification/1", pipeline.tested_rows(workspace).head(3))) == 3


def test_lineage_names_the_chosen_base(case: Case, tmp_path: Path) -> None:
    workspace, params = pipeline.open_line(tmp_path / "project", settings(case), base="small", epochs=1)
    pipeline.prepare(workspace, params)
    pipeline.learn(workspace, params)

    lineage = lineage_of(workspace, "tickets", "candidate")
    assert lineage.base_source == str(case.base.with_name("small"))
    assert lineage.base_digest == BaseManifest.read(workspace.base / "others/small").digest


@pytest.mark.exhaustive
def test_trials_are_carried_over_by_base_weights_not_name(case: Case, tmp_path: Path) -> None:
    tune = {
        "trials": 2,
        "train_fraction": 0.5,
        "initial_trial": {"learning_rate": 5.0e-3},
        "space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}},
    }
    workspace, params = pipeline.open_line(
        tmp_path / "project", Case(**{**vars(case), "changes": {**case.changes, "tune": tune}}), learning_rate="tuned"
    )
    pipeline.prepare(workspace, params)
    first = BestTrial.read(workspace.root / "models/tuned")

    grown = yaml.safe_load(workspace.params.read_text(encoding="utf-8"))
    grown["base"]["others"] = {"small": str(case.base.with_name("small"))}
    grown["train"]["base"] = "tuned"
    grown["tune"]["space"]["base"] = SPACE["base"]
    workspace.params.write_text(yaml.safe_dump(grown), encoding="utf-8")
    pipeline.prepare(workspace, read_params(workspace.params))
    assert BestTrial.read(workspace.root / "models/tuned").carried == first.complete

    changed = workspace.root / "elsewhere"  # the same name, different weights
    shutil.copytree(case.base, changed)
    config = json.loads((changed / "config.json").read_text(encoding="utf-8"))
    (changed / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}), encoding="utf-8")
    grown["base"]["model"] = str(changed)
    workspace.params.write_text(yaml.safe_dump(grown), encoding="utf-8")
    pipeline.prepare(workspace, read_params(workspace.params))
    carried = BestTrial.read(workspace.root / "models/tuned").carried
    trials = pq.read_table(workspace.root / "models/tuned/trials.parquet").to_pylist()[:carried]
    assert {json.loads(trial["params"])["base"] for trial in trials} <= {"small"}  # with unchanged weights


def test_token_metrics_refuse_different_tokenizers(case: Case, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    words = cases.make("masked_lm", tmp_path / "base")
    changes = {"base": {"others": {"small": str(case.base.with_name("small"))}}, "tune": {"space": SPACE}}
    workspace, params = pipeline.open_line(
        tmp_path / "project", Case(**{**vars(words), "changes": {**words.changes, **changes}}), base="tuned"
    )

    with pytest.raises(BadParams, match=r"the tokenizers of model, small differ and the task's metrics count tokens"):
        pipeline.prepare(workspace, params)


@pytest.mark.exhaustive
def test_resaved_tokenizer_counts_as_equal(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    words = cases.make("masked_lm", tmp_path / "base")
    copy = tmp_path / "saved"
    shutil.copytree(words.base, copy)
    saved = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    (copy / "tokenizer.json").write_text(json.dumps(saved, indent=4), encoding="utf-8")
    tune = {"trials": 2, "train_fraction": 0.5, "space": SPACE}
    changes = {**words.changes, "base": {"others": {"small": str(copy)}}, "tune": tune}
    workspace, params = pipeline.open_line(tmp_path / "project", Case(**{**vars(words), "changes": changes}), base="tuned")
    pipeline.prepare(workspace, params)

    assert BestTrial.read(workspace.root / "models/tuned").complete >= 1


@pytest.mark.parametrize(
    ("base", "train", "space", "message"),
    [
        ({}, {"base": "small"}, {}, "train.base names 'small', but the base models are: model"),
        ({"others": {"small": "x"}}, {}, {}, "base.others.small is not used: train.base is model"),
        ({"others": {"small": "x"}}, {"base": "tuned"}, {"choices": ["model", "large"]}, "tune.space.base names 'large'"),
        ({"others": {"model": "x"}}, {}, {}, "'model' is not a valid name for a base model"),
        ({"others": {"../x": "x"}}, {}, {}, "'../x' is not a valid name for a base model"),
    ],
)
def test_invalid_base_names_are_refused(case: Case, tmp_path: Path, base: dict, train: dict, space: dict, message: str) -> None:
    tune = {"tune": {"space": {"base": {"type": "categorical", **space}}}} if space else {}
    with pytest.raises(BadParams, match=message):
        pipeline.open_line(tmp_path / "project", Case(**{**vars(case), "changes": {"base": base, **tune}}), **train)


def test_default_is_one_base() -> None:
    assert BaseParams().others == {}
