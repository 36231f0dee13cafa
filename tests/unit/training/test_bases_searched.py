"""Several base models: pinned side by side, encoded each by its own tokenizer, chosen by name or by the search."""

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
    """The case with a second base model, `small`, of other words."""
    small = case.base.with_name("small")
    return Case(**{**vars(case), "changes": {**case.changes, "base": {"others": {"small": str(small)}}, **changes}})


@pytest.fixture(scope="module")
def searched(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A line whose search chose between the two, its version registered."""
    tune = {"trials": 2, "train_fraction": 0.5, "initial_trial": {"base": "small"}, "space": SPACE}
    place, params = pipeline.open_line(tmp_path_factory.mktemp("line") / "project", settings(case, tune=tune), base="tuned")
    pipeline.prepare(place, params)
    pipeline.learn(place, params)
    pipeline.assess(place, params)
    return place, pipeline.enter(place, params)[0]


def test_each_base_is_pinned_and_has_its_own_encoding(searched: tuple[Workspace, str], case: Case) -> None:
    place = searched[0]
    small, learn = BaseManifest.read(place.base / "others/small"), place.root / "data/prepared/learn"

    assert base_names(place.base) == ["model", "small"]
    assert small.source == str(case.base.with_name("small"))
    assert small.digest != BaseManifest.read(place.base).digest
    own, other = PreparedSplits.read(learn), PreparedSplits.read(learn, "small")
    assert len(own.train) == len(other.train)
    assert [row["input_ids"] for row in other.train] != [row["input_ids"] for row in own.train]  # it does not know most of the words


def test_the_search_tries_both_and_the_model_says_which_it_started_from(searched: tuple[Workspace, str]) -> None:
    place, uri = searched
    best = BestTrial.read(place.root / "models/tuned")
    spec, vocabulary = ModelSpec.read(place.model), json.loads((place.model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    chosen = place.base if spec.base == "model" else place.base / "others/small"

    assert best.complete + best.pruned == 2
    assert spec.base == best.settings["base"]
    assert vocabulary == json.loads((chosen / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert len(predict(uri, "text_classification/1", pipeline.tested_rows(place).head(3))) == 3


def test_the_lineage_names_the_base_that_was_chosen(case: Case, tmp_path: Path) -> None:
    place, params = pipeline.open_line(tmp_path / "project", settings(case), base="small", epochs=1)
    pipeline.prepare(place, params)
    pipeline.learn(place, params)

    found = lineage_of(place, "tickets", "candidate")
    assert found.base_source == str(case.base.with_name("small"))
    assert found.base_digest == BaseManifest.read(place.base / "others/small").digest


def test_a_trial_is_carried_by_the_weights_it_started_from_not_by_their_name(case: Case, tmp_path: Path) -> None:
    tune = {
        "trials": 2,
        "train_fraction": 0.5,
        "initial_trial": {"learning_rate": 5.0e-3},
        "space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}},
    }
    place, params = pipeline.open_line(
        tmp_path / "project", Case(**{**vars(case), "changes": {**case.changes, "tune": tune}}), learning_rate="tuned"
    )
    pipeline.prepare(place, params)
    first = BestTrial.read(place.root / "models/tuned")

    grown = yaml.safe_load(place.params.read_text(encoding="utf-8"))
    grown["base"]["others"] = {"small": str(case.base.with_name("small"))}
    grown["train"]["base"] = "tuned"
    grown["tune"]["space"]["base"] = SPACE["base"]
    place.params.write_text(yaml.safe_dump(grown), encoding="utf-8")
    pipeline.prepare(place, read_params(place.params))
    assert BestTrial.read(place.root / "models/tuned").carried == first.complete

    other = place.root / "elsewhere"  # the same name, other weights
    shutil.copytree(case.base, other)
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}), encoding="utf-8")
    grown["base"]["model"] = str(other)
    place.params.write_text(yaml.safe_dump(grown), encoding="utf-8")
    pipeline.prepare(place, read_params(place.params))
    carried = BestTrial.read(place.root / "models/tuned").carried
    trials = pq.read_table(place.root / "models/tuned/trials.parquet").to_pylist()[:carried]
    assert {json.loads(trial["params"])["base"] for trial in trials} <= {"small"}  # whose weights are as they were


def test_bases_whose_tokenizers_differ_are_not_compared_by_the_token(case: Case, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    words = cases.make("masked_lm", tmp_path / "base")
    changes = {"base": {"others": {"small": str(case.base.with_name("small"))}}, "tune": {"space": SPACE}}
    place, params = pipeline.open_line(tmp_path / "project", Case(**{**vars(words), "changes": {**words.changes, **changes}}), base="tuned")

    with pytest.raises(BadParams, match=r"the tokenizers of model, small differ, and the task's metrics count tokens"):
        pipeline.prepare(place, params)


def test_a_tokenizer_that_was_saved_anew_is_the_same_one(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    words = cases.make("masked_lm", tmp_path / "base")
    other = tmp_path / "saved"
    shutil.copytree(words.base, other)
    saved = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    (other / "tokenizer.json").write_text(json.dumps(saved, indent=4), encoding="utf-8")
    tune = {"trials": 2, "train_fraction": 0.5, "space": SPACE}
    changes = {**words.changes, "base": {"others": {"small": str(other)}}, "tune": tune}
    place, params = pipeline.open_line(tmp_path / "project", Case(**{**vars(words), "changes": changes}), base="tuned")
    pipeline.prepare(place, params)

    assert BestTrial.read(place.root / "models/tuned").complete >= 1


@pytest.mark.parametrize(
    ("base", "train", "space", "message"),
    [
        ({}, {"base": "small"}, {}, "train.base names 'small', but the base models are: model"),
        ({"others": {"small": "x"}}, {}, {}, "base.others.small is not used: train.base is model"),
        ({"others": {"small": "x"}}, {"base": "tuned"}, {"choices": ["model", "large"]}, "tune.space.base names 'large'"),
        ({"others": {"model": "x"}}, {}, {}, "'model' is no name for a base model"),
        ({"others": {"../x": "x"}}, {}, {}, "'../x' is no name for a base model"),
    ],
)
def test_names_that_do_not_fit_are_refused(case: Case, tmp_path: Path, base: dict, train: dict, space: dict, message: str) -> None:
    tune = {"tune": {"space": {"base": {"type": "categorical", **space}}}} if space else {}
    with pytest.raises(BadParams, match=message):
        pipeline.open_line(tmp_path / "project", Case(**{**vars(case), "changes": {"base": base, **tune}}), **train)


def test_the_default_is_one_base() -> None:
    assert BaseParams().others == {}
