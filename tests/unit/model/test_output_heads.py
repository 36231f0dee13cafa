"""Rows of a base's head are copied by label name; rows without a match are drawn at random, and both are logged."""

import json
import logging
import shutil

import pytest
import safetensors.torch
import torch
import transformers

from components.artifacts.training import ModelSpec
from components.model import tasks
from components.model.support.output_heads import match_labels

LABELS = ("billing", "device", "network")
GENERIC = ("LABEL_0", "LABEL_1", "LABEL_2")


def spec(task, labels):
    options = task.options.model_dump(mode="json")
    return ModelSpec(task="any", labels=tuple(labels), max_length=16, unicode_form="NFC", options=options)


def headed(tiny_base, folder, own, head="SequenceClassification", **config):
    """Write the tiny model with a head for the labels `own`; all weights of row k are k + 1."""
    shutil.copytree(tiny_base, folder)
    made = getattr(transformers, f"BertFor{head}")
    numbers = dict(enumerate(own))
    model = made.from_pretrained(
        tiny_base, num_labels=len(own), id2label=numbers, label2id={name: index for index, name in numbers.items()}
    )
    with torch.no_grad():
        model.classifier.weight.copy_(torch.arange(1.0, len(own) + 1)[:, None].expand_as(model.classifier.weight))
        model.classifier.bias.copy_(torch.arange(1.0, len(own) + 1))
    model.save_pretrained(folder)
    return changed(folder, **config)


def changed(folder, **config):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def rows_of(layer):
    """Return the number of the base's row for each row; 0 if it was drawn at random."""
    rows = []
    for weight, bias in zip(layer.weight.detach(), layer.bias.detach(), strict=True):
        same = bool((weight == bias).all()) and float(bias) == round(float(bias))
        rows.append(int(bias) if same else 0)
    return rows


@pytest.mark.parametrize(
    ("own", "rows"),
    [
        (LABELS, [1, 2, 3]),
        (("network", "billing", "device"), [2, 3, 1]),
        (("Network ", "BILLING", "de\u00a0vice"), [2, 0, 1]),
        (("network", "spam", "device", "billing", "other"), [4, 3, 1]),
        (("device", "billing"), [2, 1, 0]),
        (("device", "spam", "other"), [0, 1, 0]),
        (GENERIC, [0, 0, 0]),
        (("a", "b", "c"), [0, 0, 0]),
        (("billing", "billing", "network"), [0, 0, 3]),
    ],
)
def test_rows_are_copied_by_label(tiny_base, tmp_path, own, rows):
    folder = headed(tiny_base, tmp_path / "base", own)
    task = tasks.load("text_classification")
    model = task.build_model(folder, spec(task, LABELS))

    assert rows_of(model.classifier) == rows
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    ("own", "config", "rows"),
    [
        (LABELS, {"label2id": {"billing": 2, "device": 1, "network": 0}}, [0, 0, 0]),
        (LABELS, {"id2label": {"0": "billing", "1": "device"}}, [0, 0, 0]),
        (LABELS, {"architectures": ["BertForTokenClassification"]}, [0, 0, 0]),
        (LABELS, {"architectures": None}, [1, 2, 3]),
        (LABELS, {"id2label": dict(enumerate(GENERIC)), "label2id": {"network": 0, "device": 1, "billing": 2}}, [3, 2, 1]),
        (LABELS, {"label2id": {name: index for index, name in enumerate(GENERIC)}}, [1, 2, 3]),
    ],
)
def test_unreliable_names_draw_the_head_at_random(tiny_base, tmp_path, own, config, rows):
    folder = headed(tiny_base, tmp_path / "base", own, **config)
    task = tasks.load("text_classification")

    assert rows_of(task.build_model(folder, spec(task, LABELS)).classifier) == rows


def test_copied_rows_are_logged(tiny_base, tmp_path, caplog):
    caplog.set_level(logging.INFO, "components.model.support")
    task = tasks.load("text_classification")
    task.build_model(headed(tiny_base, tmp_path / "base", ("device", "spam", "billing")), spec(task, LABELS))
    task.build_model(headed(tiny_base, tmp_path / "generic", GENERIC), spec(task, LABELS))
    task.build_model(tiny_base, spec(task, LABELS))
    messages = [record.getMessage() for record in caplog.records if record.getMessage().startswith("head:")]

    assert messages == [
        "head: 2 of 3 rows copied from the base by label: billing, device; initialised randomly: network; unused labels of the base: spam",
        "head: all 3 rows are initialised randomly: the base's label names are generic",
        "head: all 3 rows are initialised randomly: the base has no head for this task",
    ]


def test_several_labels_are_matched_separately(tiny_base, tmp_path):
    folder = headed(tiny_base, tmp_path / "base", ("network", "billing", "device"))
    task = tasks.load("text_classification", {"kind": "multi"})

    assert rows_of(task.build_model(folder, spec(task, LABELS)).classifier) == [2, 3, 1]


@pytest.mark.parametrize(
    ("own", "rows"),
    [(("low", "mid"), [1, 2]), (("high", "mid"), [0, 0]), (("low", "high"), [1, 0]), (("mid", "high"), [0, 0])],
)
def test_level_is_copied_if_lower_levels_match(tiny_base, tmp_path, own, rows):
    folder = headed(tiny_base, tmp_path / "base", [f"above {level}" for level in own])
    task = tasks.load("text_classification", {"kind": "ordinal", "levels": ["low", "mid", "high"]})

    assert rows_of(task.build_model(folder, spec(task, ("low", "mid", "high"))).classifier) == rows


@pytest.mark.parametrize("own", [("network", "billing", "device"), ("device", "billing"), GENERIC])
def test_own_head_is_matched(tiny_base, tmp_path, own):
    task = tasks.load("text_classification", {"pooling": "mean", "head_hidden": 8})
    first = task.build_model(tiny_base, spec(task, own))
    shutil.copytree(tiny_base, tmp_path / "base")
    first.save_pretrained(tmp_path / "base")
    second = task.build_model(tmp_path / "base", spec(task, LABELS))

    assert torch.equal(second.head.dense.weight, first.head.dense.weight)
    for index, label in enumerate(LABELS):
        if label in own:
            assert torch.equal(second.head.out.weight[index], first.head.out.weight[own.index(label)])
        else:
            assert not any(torch.equal(second.head.out.weight[index], row) for row in first.head.out.weight)


TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.mark.parametrize(
    ("own", "rows"),
    [
        (("I-PER", "B-PER", "I-LOC", "B-LOC", "O"), [5, 4, 3, 2, 1]),
        (("O", "B-PER", "I-PER"), [1, 0, 0, 2, 3]),
        (("O", "I-PER", "I-LOC", "S-PER", "S-LOC", "E-PER"), [1, 0, 3, 0, 2]),
    ],
)
def test_tag_rows_are_copied_by_name(tiny_base, tmp_path, own, rows):
    folder = headed(tiny_base, tmp_path / "base", own, "TokenClassification")
    task = tasks.load("token_classification")

    assert rows_of(task.build_model(folder, spec(task, TAGS)).classifier) == rows


@pytest.mark.parametrize("own", [TAGS, ("I-PER", "B-PER", "I-LOC", "B-LOC", "O"), ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC")])
def test_crf_rows_follow_their_tags(tiny_base, tmp_path, own):
    task = tasks.load("token_classification", {"head": "crf", "transition_rate": 10.0})
    first = task.build_model(tiny_base, spec(task, own))
    with torch.no_grad():
        for weights in first.crf.parameters():
            weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(3)))
    shutil.copytree(tiny_base, tmp_path / "base")
    first.save_pretrained(tmp_path / "base")
    slower = tasks.load("token_classification", {"head": "crf", "transition_rate": 5.0})
    second = slower.build_model(tmp_path / "base", spec(slower, TAGS))

    for i, tag in enumerate(TAGS):
        assert second.crf.start[i].item() == pytest.approx(2 * first.crf.start[own.index(tag)].item() if tag in own else 0)
        for j, following in enumerate(TAGS):
            both = tag in own and following in own
            expected = 2 * first.crf.transitions[own.index(tag), own.index(following)].item() if both else 0
            assert second.crf.transitions[i, j].item() == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_question_answering_starts_from_any_classifier(tiny_base, tmp_path, count):
    folder = headed(tiny_base, tmp_path / "base", [f"label {index}" for index in range(count)])
    task = tasks.load("question_answering")
    model = task.build_model(folder, spec(task, ()))
    output = model(input_ids=torch.ones(1, 4, dtype=torch.long))

    assert output.start_logits.shape == output.end_logits.shape == (1, 4)
    assert model.qa_outputs.out_features == 2


def test_question_answering_head_is_kept(tiny_base, tmp_path):
    shutil.copytree(tiny_base, tmp_path / "base")
    first = transformers.BertForQuestionAnswering.from_pretrained(tiny_base)
    first.save_pretrained(tmp_path / "base")
    task = tasks.load("question_answering")

    assert torch.equal(task.build_model(tmp_path / "base", spec(task, ())).qa_outputs.weight, first.qa_outputs.weight)


def test_exact_names_match_first():
    assert match_labels(("yes", "Yes"), ("Yes", "yes")) == {0: 1, 1: 0}
    assert match_labels(("YES", "Yes"), ("yes",)) == {}
    assert match_labels((" a  b ",), ("A B",)) == {0: 0}


def test_sharded_base_keeps_its_head(tiny_base, tmp_path):
    folder = headed(tiny_base, tmp_path / "base", ("network", "billing", "device"))
    (folder / "model.safetensors").rename(folder / "whole")
    tensors = safetensors.torch.load_file(folder / "whole")
    (folder / "whole").unlink()
    files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        part = {name: tensors[name] for name in tensors if files[name] == file}
        safetensors.torch.save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    task = tasks.load("text_classification")

    assert rows_of(task.build_model(folder, spec(task, LABELS)).classifier) == [2, 3, 1]
