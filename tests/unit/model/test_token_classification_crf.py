"""The CRF compared with enumeration and with pytorch-crf, and as a head of every family."""

from itertools import product

import pytest
import torch
import torchcrf
import transformers as t

from components.model.methods import lora
from components.model.support.layers import depths
from components.model.tasks.token_classification.crf import IGNORED, AutoModelForTokenClassificationWithCrf, Crf, may_follow
from components.model.tasks.token_classification.schemes import tag_error

LABELS = {
    "plain": ("a", "b", "c", "d"),
    "BIO": ("O", "B-X", "I-X", "B-Y", "I-Y"),
    "BIOES": ("O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"),
}
LENGTHS = torch.tensor([4, 3, 1, 2])


def make_crf(scheme, dtype=torch.float32):
    torch.manual_seed(3)
    crf = Crf(LABELS[scheme], scheme).to(dtype)
    for weights in crf.parameters():
        torch.nn.init.normal_(weights)
    return crf


def emissions_for(scheme):
    return torch.randn(len(LENGTHS), int(LENGTHS.max()), len(LABELS[scheme]), generator=torch.Generator().manual_seed(5))


def paths_of(scheme, length):
    """Return all valid tag sequences, by the rules of the data check, not of the CRF."""
    return [
        path for path in product(range(len(LABELS[scheme])), repeat=length) if not tag_error([LABELS[scheme][tag] for tag in path], scheme)
    ]


def scores_by_hand(crf, emissions, paths):
    """Compute the score of each path by the formula."""
    paths = torch.tensor(paths)
    steps = emissions[torch.arange(paths.shape[1]), paths].sum(1) + crf.transitions[paths[:, :-1], paths[:, 1:]].sum(1)
    return crf.start[paths[:, 0]] + steps + crf.end[paths[:, -1]]


@pytest.mark.parametrize("scheme", LABELS)
def test_likelihood_and_best_path_equal_enumeration(scheme):
    crf, emissions = make_crf(scheme), emissions_for(scheme)
    best = crf.decode(emissions, LENGTHS)

    for row, length in enumerate(LENGTHS.tolist()):
        paths = paths_of(scheme, length)
        scores = scores_by_hand(crf, emissions[row], paths)
        rows = torch.full((len(paths), emissions.shape[1]), IGNORED)
        rows[:, :length] = torch.tensor(paths)
        likelihoods = crf.log_likelihood(emissions[row].expand(len(paths), -1, -1), rows, torch.full((len(paths),), length))
        assert torch.allclose(likelihoods, scores - scores.logsumexp(0), atol=1e-5)
        assert likelihoods.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert tuple(best[row, :length].tolist()) == paths[int(scores.argmax())]
        assert (best[row, length:] == IGNORED).all()


@pytest.mark.parametrize("scheme", LABELS)
def test_gradients_equal_enumeration(scheme):
    emissions = emissions_for(scheme).requires_grad_()
    all_paths = [paths_of(scheme, length) for length in LENGTHS.tolist()]
    tags = torch.tensor([[*paths[-1], *[IGNORED] * (4 - len(paths[-1]))] for paths in all_paths])
    crf = make_crf(scheme)
    by_hand = torch.stack([(s := scores_by_hand(crf, emissions[row], paths))[-1] - s.logsumexp(0) for row, paths in enumerate(all_paths)])
    expected = torch.autograd.grad(by_hand.sum(), [emissions, *crf.parameters()])
    gradients = torch.autograd.grad(crf.log_likelihood(emissions, tags, LENGTHS).sum(), [emissions, *crf.parameters()])

    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, expected, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in expected)


def test_rate_scales_the_learning_rate():
    slow, fast, emissions = make_crf("BIO"), Crf(LABELS["BIO"], "BIO", rate=10), emissions_for("BIO")
    tags = slow.decode(emissions, LENGTHS)
    for fast_weights, slow_weights in zip(fast.parameters(), slow.parameters(), strict=True):
        fast_weights.data.copy_(slow_weights.data / 10)
    likelihoods = [crf.log_likelihood(emissions, tags, LENGTHS) for crf in (slow, fast)]
    gradients = [
        torch.autograd.grad(likelihood.sum(), list(crf.parameters())) for likelihood, crf in zip(likelihoods, (slow, fast), strict=True)
    ]

    assert torch.allclose(*likelihoods, atol=1e-5)
    assert all(torch.allclose(slow_gradient, fast_gradient, atol=1e-5) for slow_gradient, fast_gradient in zip(*gradients, strict=True))


def test_plain_scheme_equals_pytorch_crf():
    crf, reference, emissions = make_crf("plain"), torchcrf.CRF(4, batch_first=True), emissions_for("plain").requires_grad_()
    pairs = [(crf.start, reference.start_transitions), (crf.transitions, reference.transitions), (crf.end, reference.end_transitions)]
    for parameter, reference_parameter in pairs:
        reference_parameter.data.copy_(parameter.data)
    tags = torch.randint(4, (4, 4), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(4) < LENGTHS[:, None]
    ours, expected = crf.log_likelihood(emissions, tags, LENGTHS), reference(emissions, tags, mask=mask, reduction="none")
    gradients = torch.autograd.grad(ours.sum(), [emissions, *(parameter for parameter, _ in pairs)])
    expected_gradients = torch.autograd.grad(expected.sum(), [emissions, *(parameter for _, parameter in pairs)])

    assert torch.allclose(ours, expected, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, expected_gradients, strict=True))
    assert [[tag for tag in row if tag != IGNORED] for row in crf.decode(emissions, LENGTHS).tolist()] == reference.decode(emissions, mask)


@pytest.mark.parametrize("scheme", LABELS)
def test_allowed_transitions_match_the_scheme(scheme):
    labels = LABELS[scheme]
    for path in product(labels, repeat=3):
        steps = zip((None, *path), (*path, None), strict=True)
        assert all(may_follow(before, after, scheme) for before, after in steps) == (tag_error(path, scheme) is None)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_decoded_tags_are_always_valid(scheme):
    crf = make_crf(scheme)
    emissions = 1_000 * torch.randn(200, 9, len(LABELS[scheme]), generator=torch.Generator().manual_seed(2))
    lengths = torch.arange(200) % 9 + 1

    for row, length in zip(crf.decode(emissions, lengths).tolist(), lengths.tolist(), strict=True):
        assert tag_error([LABELS[scheme][tag] for tag in row[:length]], scheme) is None


def test_long_sentences_stay_finite():
    crf = make_crf("BIO")
    emissions = (300 * torch.randn(2, 500, 5, generator=torch.Generator().manual_seed(4))).requires_grad_()
    lengths = torch.tensor([500, 499])
    likelihood = crf.log_likelihood(emissions, crf.decode(emissions, lengths), lengths)
    likelihood.sum().backward()

    assert (likelihood <= 0).all()
    assert torch.isfinite(likelihood).all()
    assert torch.isfinite(emissions.grad).all()
    assert torch.isfinite(crf.transitions.grad).all()


def families():
    small = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return {
        "bert": t.BertModel(t.BertConfig(**small)),
        "pretrained with a language head": t.BertForMaskedLM(t.BertConfig(**small)),
        "roberta": t.RobertaModel(t.RobertaConfig(**small)),
        "distilbert": t.DistilBertModel(t.DistilBertConfig(vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32)),
        "xlnet": t.XLNetModel(t.XLNetConfig(vocab_size=60, d_model=16, n_layer=2, n_head=2, d_inner=32)),
        "electra": t.ElectraModel(t.ElectraConfig(**small, embedding_size=8)),
        "deberta": t.DebertaV2Model(t.DebertaV2Config(**small)),
    }


def batch_of(generator):
    """Return two sentences of three tokens (the last has two sub-words) and one token, padded."""
    ids = torch.randint(5, 60, (2, 6), generator=generator)
    labels = torch.tensor([[IGNORED, 1, 2, 0, IGNORED, IGNORED], [IGNORED, 3, IGNORED, IGNORED, IGNORED, IGNORED]])
    attention = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


@pytest.fixture(params=families())
def base(request, tmp_path):
    torch.manual_seed(0)
    families()[request.param].save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(folder, **settings):
    torch.manual_seed(1)
    return AutoModelForTokenClassificationWithCrf.from_pretrained(folder, labels=LABELS["BIO"], scheme="BIO", **settings)


def test_every_family_trains_and_reloads(base, tmp_path):
    model, batch = load(base), batch_of(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval().save_pretrained(tmp_path / "saved")
    again = AutoModelForTokenClassificationWithCrf.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        expected, reloaded = model(**batch), again(**batch)
        linear = t.AutoModelForTokenClassification.from_pretrained(tmp_path / "saved").eval()(**{**batch, "labels": None})

    assert isinstance(model, t.PreTrainedModel)
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(expected.logits, reloaded.logits)
    assert torch.equal(expected.loss, reloaded.loss)
    assert torch.equal(expected.tags, reloaded.tags)
    assert torch.equal(expected.logits, linear.logits)
    assert again.crf.transitions.abs().sum() > 0
    assert set(depths(model).values()) == {0, 1, 2, 3}
    assert [path.name for path in (tmp_path / "saved").iterdir() if path.suffix not in (".json",)] == ["model.safetensors"]


def test_changed_rate_keeps_the_weights(base, tmp_path):
    model = load(base, rate=50.0).eval()
    torch.nn.init.normal_(model.crf.transitions, std=0.02)
    model.save_pretrained(tmp_path / "saved")
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        for rate in (None, 50.0, 7.0):
            assert torch.equal(model(ids).tags, load(tmp_path / "saved", rate=rate).eval()(ids).tags)
    assert torch.allclose(load(tmp_path / "saved", rate=7.0).crf._weights()[1], model.crf._weights()[1], atol=1e-5)


def test_lora_trains_the_crf(base):
    model, batch = load(base), batch_of(torch.Generator().manual_seed(0))
    wrapped = lora.prepare(model, lora.Params(lora_rank=2, lora_alpha=4.0)).train()
    wrapped(**batch).loss.backward()
    learning = {name.rpartition(".")[2] for name, weights in wrapped.named_parameters() if "crf" in name and weights.grad is not None}

    assert learning == {"start", "transitions", "end"}
    assert type(lora.finish(wrapped)) is type(load(model.config._name_or_path))


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    families()["bert"].save_pretrained(tmp_path / "base")
    return load(tmp_path / "base").eval()


def test_crf_reads_only_token_starts(model):
    """The loss of a batch is that of the emissions at token starts."""
    torch.nn.init.normal_(model.crf.transitions)
    batch = batch_of(torch.Generator().manual_seed(0))
    output = model(**batch)
    emissions = torch.zeros(2, 3, 5)
    emissions[0], emissions[1, 0] = output.logits[0, 1:4], output.logits[1, 1]
    by_hand = model.crf.log_likelihood(emissions, torch.tensor([[1, 2, 0], [3, IGNORED, IGNORED]]), torch.tensor([3, 1]))

    assert output.loss.item() == pytest.approx(-by_hand.sum().item() / 4, abs=1e-6)
    assert ((output.tags != IGNORED) == (batch["labels"] != IGNORED)).all()


def test_empty_rows_and_padding_change_nothing(model):
    batch = batch_of(torch.Generator().manual_seed(0))
    wider = {name: torch.nn.functional.pad(cells, (0, 4), value=IGNORED if name == "labels" else 0) for name, cells in batch.items()}
    empty = {"input_ids": torch.zeros(1, 10, dtype=torch.int64), "attention_mask": torch.ones(1, 10, dtype=torch.int64)}
    empty["labels"] = torch.full((1, 10), IGNORED)
    larger = {name: torch.cat([empty[name], cells]) for name, cells in wider.items()}
    expected, padded, no_tokens = model(**batch), model(**larger), model(**empty)

    assert padded.loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    assert torch.equal(padded.tags[1:, :6], expected.tags)
    assert no_tokens.loss.item() == 0
    assert (no_tokens.tags == IGNORED).all()


def test_tokens_come_from_begins_or_attention_mask(model):
    batch = batch_of(torch.Generator().manual_seed(0))
    labels = batch.pop("labels")

    assert torch.equal(model(**batch, begins=labels != IGNORED).tags, model(**batch, labels=labels).tags)
    assert ((model(**batch).tags != IGNORED) == batch["attention_mask"].bool()).all()
    assert model(**batch).loss is None


def test_crf_uses_float32_under_bfloat16(model):
    batch = batch_of(torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.train()(**batch)
        again = model._answer(output.logits.float(), batch["labels"], batch["labels"] != IGNORED)[0]
    output.loss.backward()

    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(again.item(), abs=1e-6)
    assert model.crf.transitions.grad.dtype == torch.float32


def test_unsupported_architecture_is_rejected(tmp_path):
    t.Speech2TextConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no token classification model of the type speech_to_text"):
        AutoModelForTokenClassificationWithCrf.from_pretrained(tmp_path, labels=["O"], scheme="BIO")
