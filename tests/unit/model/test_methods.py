"""Each fine-tuning method on the two-layer model: which weights learn, what is saved, and exact resumes."""

import json
import shutil
import statistics

import pytest
import safetensors.torch
import torch

from components.core.errors import BadParams
from components.model import methods, tasks
from components.model.methods import freeze, lora
from components.model.support.layers import depths, head_depth
from components.training.trainer import TrainParams
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.learn import make_learn, spec_of
from tests.support.tiers import rest_exhaustive

task = tasks.load("text_classification")

LORA = lora.Params(lora_rank=4)
VARIANTS = {
    "full": {},
    "decay": {"layer_decay": 0.5},
    "freeze": {"method": "freeze", "frozen_layers": 1},
    "lora": {"method": "lora", "lora_dropout": 0.1},
    "dora": {"method": "lora", "lora_dora": True, "lora_targets": "all-linear"},
}


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))


@pytest.fixture(scope="module")
def tiny_base(tiny_base, tmp_path_factory):
    """The two-layer model with larger weights, so that its output depends on the words before training."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("loud") / "base")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    larger = {name: 10 * tensor if tensor.ndim == 2 and "embeddings" not in name else tensor for name, tensor in state.items()}
    safetensors.torch.save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def model(tiny_base):
    torch.manual_seed(0)
    return task.build_model(tiny_base, spec_of("a", "b", "c"))


def test_every_file_is_a_method():
    loaded = [methods.load(name) for name in methods.available()]
    fields = [field for method in loaded for field in method.Params.model_fields]

    assert {"freeze", "full", "lora"} <= set(methods.available())
    assert all(callable(method.prepare) and callable(method.finish) for method in loaded)
    assert len(fields) == len(set(fields)), "two methods define the same setting"
    assert set(fields).isdisjoint(TrainParams.__annotations__), "a method redefines a field of `train`"
    assert set(fields) < set(TrainParams.model_fields)


def test_unknown_method_gets_a_suggestion():
    with pytest.raises(
        BadParams, match=r"unknown method 'lorra'; components/model/methods has: .*freeze, full, lora.*; did you mean 'lora'\?"
    ):
        methods.load("lorra")
    with pytest.raises(BadParams, match=r"train\.method: unknown method 'frozen'"):
        TrainParams.parse({"method": "frozen"}, "train")


@pytest.mark.slow
@pytest.mark.parametrize("variant", rest_exhaustive(VARIANTS, "lora"))
def test_resumed_run_equals_an_uninterrupted_run(tiny_base, learn, tmp_path, variant):
    expected, resumed = cut_and_resumed(task, tiny_base, learn, QUICK.model_copy(update=VARIANTS[variant]), tmp_path)

    histories = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    points = [[{**json.loads(line), "seconds": 0} for line in history] for history in histories]
    assert points[0] == points[1]
    assert (resumed.best_step, resumed.best_value, resumed.parameters) == (expected.best_step, expected.best_value, expected.parameters)
    assert same(weights(resumed.model), weights(expected.model))


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_method_learns(tiny_base, learn, tmp_path, variant):
    keep = keep_in(tmp_path / "out")
    best = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 8} | VARIANTS[variant]), keep=keep).best_value

    losses = [point["loss"] for point in map(json.loads, keep.history.read_text().splitlines()) if "loss" in point]
    assert statistics.fmean(losses[-6:]) < 0.7 * losses[0]
    assert best > 0.5  # of three classes


@pytest.mark.slow
@pytest.mark.parametrize("method", ["freeze", "lora"])
def test_finished_training_returns_its_weights(tiny_base, learn, tmp_path, method):
    keep = keep_in(tmp_path / "out")
    settings = QUICK.model_copy(update={"epochs": 1, "method": method})
    first = fit(task, tiny_base, learn, settings, keep=keep)
    again = fit(task, tiny_base, learn, settings, keep=keep)

    assert again.resumed == first.steps
    assert same(weights(first.model), weights(again.model))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_model_is_plain_and_equal(tiny_base, learn, tmp_path, variant):
    trained = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1} | VARIANTS[variant])).model
    plain = task.build_model(tiny_base, learn.spec)
    trained.save_pretrained(tmp_path / "model")
    loaded = task.build_model(tmp_path / "model", learn.spec)
    batch = task.collator(task.load_tokenizer(tiny_base), spec_of("a", "b", "c"))([learn.validation[i] for i in range(8)])

    assert trained.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in trained.parameters())
    with torch.no_grad():
        assert torch.equal(trained.eval()(**batch).logits, loaded.eval()(**batch).logits)


@pytest.mark.parametrize("dora", [False, True])
def test_merging_keeps_the_predictions(model, learn, tiny_base, dora):
    batch = task.collator(task.load_tokenizer(tiny_base), spec_of("a", "b", "c"))([learn.validation[i] for i in range(8)])
    with torch.no_grad():
        before = model.eval()(**batch).logits
        wrapped = lora.prepare(model, LORA.model_copy(update={"lora_dora": dora})).eval()
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
        adapted = wrapped(**batch).logits
        merged = lora.finish(wrapped)(**batch).logits

    assert not torch.allclose(adapted, before, atol=1e-2)
    assert torch.allclose(merged, adapted, atol=1e-5)


def moved(tiny_base, learn, **changes):
    settings = QUICK.model_copy(update={"epochs": 1} | changes)
    torch.manual_seed(settings.seed)
    before = weights(task.build_model(tiny_base, learn.spec))
    after = weights(fit(task, tiny_base, learn, settings).model)
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.slow
@pytest.mark.parametrize(("frozen_layers", "frozen"), [(0, {0}), (1, {0, 1}), (2, {0, 1, 2}), (-1, {0, 1, 2})])
def test_freezing_trains_only_the_layers_above(tiny_base, learn, model, frozen_layers, frozen):
    depth = depths(model)

    assert set(depth.values()) == {0, 1, 2, 3}
    assert moved(tiny_base, learn, method="freeze", frozen_layers=frozen_layers) == {name for name, at in depth.items() if at not in frozen}


@pytest.mark.slow
def test_lora_changes_its_targets_and_the_head(tiny_base, learn, model):
    head = {name for name, at in depths(model).items() if at == 3}
    queries = {f"bert.encoder.layer.{layer}.attention.self.{name}.weight" for layer in (0, 1) for name in ("query", "value")}

    assert moved(tiny_base, learn, method="lora") == queries | head


@pytest.mark.parametrize(("targets", "count"), [("default", 4), ("all-linear", 12), ("query, key", 4), ("attention.output.dense", 2)])
def test_adapters_are_at_their_targets(model, targets, count):
    wrapped = lora.prepare(model, LORA.model_copy(update={"lora_targets": targets}))

    assert sum("lora_A" in name for name, _ in wrapped.named_parameters()) == count


def test_settings_that_do_not_fit_the_model_are_refused(model):
    with pytest.raises(BadParams, match=r"frozen_layers is 3, but the base model has 2 layers"):
        freeze.prepare(model, freeze.Params(frozen_layers=3))
    with pytest.raises(BadParams, match=r"lora_targets names 'q_proj'; the linear layers of the base are: dense, key, query, value"):
        lora.prepare(model, LORA.model_copy(update={"lora_targets": "query q_proj"}))


def architectures():
    import transformers as t

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return {
        "bert": t.BertForSequenceClassification(t.BertConfig(**small)),
        "roberta": t.RobertaForSequenceClassification(t.RobertaConfig(**small)),
        "electra": t.ElectraForSequenceClassification(t.ElectraConfig(**small, embedding_size=8)),
        "distilbert": t.DistilBertForSequenceClassification(t.DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2)),
        "modernbert": t.ModernBertForSequenceClassification(t.ModernBertConfig(**small, pad_token_id=0)),
    }


def test_layers_of_every_family_are_recognised():
    for family, model in architectures().items():
        depth = depths(model)
        assert set(depth.values()) == {0, 1, 2, 3}, family
        assert {name for name, at in depth.items() if at == 0} == {name for name in depth if "embeddings" in name}, family
        assert all(at == 3 for name, at in depth.items() if "classifier" in name or "pooler" in name), family
        assert lora.prepare(model, LORA.model_copy(update={"lora_targets": "all-linear"})) is not model, family


def generators():
    import transformers as t

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 32))
    }
    pair = t.EncoderDecoderConfig.from_encoder_decoder_configs(t.BertConfig(**small), t.BertConfig(**small))
    return {
        "gpt2": t.GPT2LMHeadModel(t.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)),
        "llama": t.LlamaForCausalLM(t.LlamaConfig(**small, tie_word_embeddings=False)),
        "tied llama": t.LlamaForCausalLM(t.LlamaConfig(**small, tie_word_embeddings=True)),
        "t5": t.T5ForConditionalGeneration(t.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)),
        "bart": t.BartForConditionalGeneration(t.BartConfig(vocab_size=50, d_model=16, **halves)),
        "marian": t.MarianMTModel(t.MarianConfig(vocab_size=50, d_model=16, pad_token_id=49, **halves)),
        "pair": t.EncoderDecoderModel(pair),
    }


# By family: the depth of the head, the head modules that are trained in full, and the number of layers that may get an adapter.
GENERATORS = {
    "gpt2": (3, ["transformer.ln_f"], 8),
    "llama": (3, ["model.norm"], 14),
    "tied llama": (3, ["model.norm"], 14),
    "t5": (5, ["decoder.final_layer_norm"], 32),
    "bart": (5, [], 32),
    "marian": (5, [], 32),
}


def test_decoder_layers_follow_the_encoder():
    models = generators()
    for family, (head, fresh, linear) in GENERATORS.items():
        depth = depths(models[family])
        assert head_depth(models[family]) == head, family
        assert set(depth.values()) >= set(range(head)), family
        assert {name for name, at in depth.items() if at == 0} == {
            name for name in depth if any(word in name for word in ("embed", "shared", "wte", "wpe"))
        }, family
        assert lora._head_modules(models[family]) == fresh, family
        assert len(lora._targets(models[family], "all-linear")) == linear, family


def test_cross_attention_of_two_encoders_is_new():
    model = generators()["pair"]
    depth, fresh = depths(model), lora._head_modules(model)

    assert all(at == 5 for name, at in depth.items() if "crossattention" in name or "predictions" in name)
    assert sum(".crossattention." in name for name in fresh) == 10
    assert "decoder.cls.predictions" not in fresh  # it shares the weight of the embeddings
    assert "decoder.cls.predictions.transform.dense" in fresh


def test_freezing_all_with_a_tied_head_is_refused():
    with pytest.raises(BadParams, match="nothing would learn"):
        freeze.prepare(generators()["bart"], freeze.Params(frozen_layers=-1))
