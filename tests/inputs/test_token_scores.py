"""Models that score each token: labels, masks, next tokens and decoders. The oracle is captum, in float64."""

import functools

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradientXActivation, LayerIntegratedGradients
from torch import nn
from toys import far
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    BertTokenizerFast,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

import saliency_widgets as sw
from saliency_widgets.session import Problem

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "cat", "sat", "on", "mat", "dog", "##s", "a", "good", "movie", "bad"),
]
SIZE = len(WORDS)
TEXT, MASKED = "the cats sat on a good mat", "the cat [MASK] on the mat"
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizerFast(vocab={word: index for index, word in enumerate(WORDS)})


def tagger():
    names = dict(enumerate(["O", "B-CAT", "I-CAT"]))
    config = BertConfig(vocab_size=SIZE, max_position_embeddings=24, num_labels=3, id2label=names, **SMALL)
    return seeded(BertForTokenClassification, config)


def masked():
    return seeded(BertForMaskedLM, BertConfig(vocab_size=SIZE, max_position_embeddings=24, **SMALL))


def causal(layers=2):
    special = {"bos_token_id": 2, "eos_token_id": 1}
    return seeded(
        GPT2LMHeadModel,
        GPT2Config(vocab_size=SIZE, n_embd=16, n_layer=layers, n_head=2, n_positions=24, **special),
    )


def decoding():
    return seeded(
        T5ForConditionalGeneration,
        T5Config(
            vocab_size=SIZE, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=3,
        ),
    )  # fmt: skip


def seeded(kind, config):
    torch.manual_seed(0)
    return kind(config).double().eval()


class Tagger(nn.Module):
    """A recurrent tagger of ids."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm = nn.Embedding(SIZE, 5), nn.LSTM(5, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)
        self.double()

    def forward(self, ids):
        return self.head(self.lstm(self.embedding(ids))[0])


def scores_of(net):
    def scores(ids, mask):
        return net(ids) if isinstance(net, Tagger) else net(input_ids=ids, attention_mask=mask).logits

    return scores


def case(model, text, tokenizer):
    """A model, a text as it takes it, and its embedding."""
    net = model()
    embedding = net.embedding if isinstance(net, Tagger) else net.get_input_embeddings()
    return net, tokenizer(text, return_tensors="pt"), embedding


MODELS = [(tagger, TEXT), (masked, MASKED), (causal, TEXT), (Tagger, TEXT)]
IDS = ["labels", "mask", "next", "LSTM"]


@pytest.mark.parametrize(("model", "text"), MODELS, ids=IDS)
def test_integrated_gradients_of_a_token_equal_captums(model, text, tokenizer):
    net, batch, embedding = case(model, text, tokenizer)
    theirs = LayerIntegratedGradients(scores_of(net), embedding).attribute(
        batch["input_ids"],
        torch.zeros_like(batch["input_ids"]),
        target=(3, 1),
        additional_forward_args=(batch["attention_mask"],),
        n_steps=32,
        method="riemann_middle",
    )
    settings = {"target": (3, 1), "n_steps": 32, "quadrature": "midpoint", "tolerance": 0}
    pads = embedding(torch.zeros_like(batch["input_ids"])).detach()
    result = sw.attribute(net, batch_of(batch), tokenizer=tokenizer, baseline=pads, **settings)
    assert far(result.values, theirs) < 1e-10
    assert result.settings["target"] == (3, 1)


@pytest.mark.parametrize(("model", "text"), MODELS, ids=IDS)
def test_input_x_gradient_of_a_token_equals_captums(model, text, tokenizer):
    net, batch, embedding = case(model, text, tokenizer)
    theirs = LayerGradientXActivation(scores_of(net), embedding).attribute(
        batch["input_ids"], target=(4, 2), additional_forward_args=(batch["attention_mask"],)
    )
    result = sw.attribute(net, batch_of(batch), tokenizer=tokenizer, target=(4, 2), method="input_x_gradient")
    assert far(result.values, theirs) < 1e-10


def test_the_encoder_of_an_encoder_and_decoder_equals_captums_on_embeddings(tokenizer):
    net = decoding()
    batch = tokenizer(TEXT, return_tensors="pt")
    started = torch.tensor([[0, 7, 5]])
    embeddings = net.get_input_embeddings()(batch["input_ids"]).detach()
    start = net.get_input_embeddings()(torch.zeros_like(batch["input_ids"])).detach()

    def scores(embeddings):
        mask = batch["attention_mask"].expand(len(embeddings), -1)
        decoder = started.expand(len(embeddings), -1)
        return net(inputs_embeds=embeddings, attention_mask=mask, decoder_input_ids=decoder).logits

    theirs = IntegratedGradients(scores).attribute(
        embeddings, start, target=(2, 9), n_steps=32, method="riemann_middle"
    )
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")} | {"decoder_input_ids": started}
    result = sw.attribute(
        net, inputs, tokenizer=tokenizer, target=(2, 9), baseline=start, n_steps=32, quadrature="midpoint", tolerance=0
    )
    assert far(result.values, theirs) < 1e-10


# ---- what is scored, and which token is explained at first


@pytest.mark.parametrize(
    ("model", "text", "role", "position"),
    [
        (tagger, TEXT, "label", 1),
        (Tagger, TEXT, "label", 1),
        (masked, MASKED, "mask", 3),
        (masked, TEXT, "mask", 1),
        (causal, TEXT, "next", 9),
        (decoding, TEXT, "next", 0),
    ],
)
def test_the_role_of_the_scores_is_recognized(model, text, role, position, tokenizer):
    net = model()
    batch = tokenizer(text, return_tensors="pt")
    problem = Problem(net, batch_of(batch), tokenizer=tokenizer)
    assert problem.kind.positions.role == role
    with torch.no_grad():
        if role == "next" and model is decoding:
            logits = net(**batch_of(batch), decoder_input_ids=torch.tensor([[0]])).logits
        else:
            logits = scores_of(net)(batch["input_ids"], batch["attention_mask"])
    top = int(logits[0, position].argmax())
    assert problem.choice(None) == (position, top)
    assert torch.equal(problem.logits[0], logits[0, position])


@pytest.mark.parametrize(("model", "role"), [(causal, "next"), (masked, "mask")])
@pytest.mark.parametrize("padded", [0, 4], ids=["", "padded before"])
def test_the_beginning_of_a_long_text_tells_whether_a_model_looks_ahead(model, role, padded, tokenizer, monkeypatch):
    net, lengths = model(), []
    forward = type(net).forward

    @functools.wraps(forward)
    def counted(self, input_ids, **more):
        lengths.append(input_ids.shape[1])
        return forward(self, input_ids, **more)

    monkeypatch.setattr(type(net), "forward", counted)
    batch = {"input_ids": torch.arange(5, 25)[None] % 11 + 5, "attention_mask": torch.ones(1, 20).long()}
    batch["attention_mask"][:, :padded] = 0
    problem = Problem(net, batch, tokenizer=tokenizer)
    assert problem.kind.positions.role == role
    assert len(problem.logits) == 1
    # Once to find the embedding, and for the scores; only with padding, the first tokens tell nothing.
    assert lengths == ([20, 20, 20] if padded else [20, 8, 8, 20])


def batch_of(batch):
    """Without segments, for which GPT-2 looks up embeddings of tokens."""
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_a_next_token_is_explained_only_by_what_precedes_it(tokenizer):
    result = sw.attribute(causal(), TEXT, tokenizer=tokenizer, target=(4, "dog"), baseline="zero", n_steps=4)
    assert result.settings["target"] == (4, WORDS.index("dog"))
    values = result.values.abs().sum(-1)[0]
    assert (values[:5] > 0).all()
    assert (values[5:] == 0).all()


def test_a_contrast_is_a_class_at_the_same_position(tokenizer):
    net, about = causal(), {"tokenizer": tokenizer, "baseline": "zero", "n_steps": 4, "tolerance": 0}
    about["quadrature"] = "midpoint"
    both = sw.attribute(net, TEXT, target=(4, "dog"), contrast="cat", **about)
    dog, cat = (sw.attribute(net, TEXT, target=(4, word), **about) for word in ("dog", "cat"))
    assert far(both.values, dog.values - cat.values) < 1e-12
    assert both.settings["contrast"] == (4, WORDS.index("cat"))
    with pytest.raises(ValueError, match="contrast: expected a class at the position of target"):
        sw.attribute(net, TEXT, target=(4, "dog"), contrast=(3, "cat"), **about)


@pytest.mark.parametrize("score", ["probability", "log_probability"])
def test_scores_of_a_token_are_probabilities_over_the_classes(score, tokenizer):
    net = causal()
    batch = batch_of(tokenizer(TEXT, return_tensors="pt"))
    ids = batch["input_ids"]
    result = sw.attribute(net, batch, tokenizer=tokenizer, target=(4, 6), score=score, method="gradient")
    embeddings = net.get_input_embeddings()(ids).detach().requires_grad_()
    shares = net(inputs_embeds=embeddings).logits.log_softmax(-1)[0, 4, 6]
    value = shares.exp() if score == "probability" else shares
    assert far(result.score, value[None]) < 1e-12
    assert far(result.values, torch.autograd.grad(value, embeddings)[0]) < 1e-10


def test_several_texts_have_a_position_each(tokenizer):
    net = causal()
    texts = [TEXT, "a bad dog"]
    about = {"tokenizer": tokenizer, "method": "gradient"}
    together = sw.attribute(net, texts, target=[(4, 6), (2, 7)], **about)
    for sample, target in enumerate([(4, 6), (2, 7)]):
        alone = sw.attribute(net, texts[sample], target=target, **about).values
        length = alone.shape[1]
        assert far(together.values[sample : sample + 1, :length], alone) < 1e-10
    assert sw.attribute(net, texts, **about).settings["target"][1][0] == 4  # the last token before the padding


def test_a_continuation_is_the_most_probable_one(tokenizer):
    net = causal()
    batch = batch_of(tokenizer(TEXT, return_tensors="pt"))
    ids = batch["input_ids"]
    expected = net.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False, eos_token_id=1, pad_token_id=0
    )
    problem = Problem(net, batch, tokenizer=tokenizer, max_new_tokens=3)
    assert problem.kind.tokens.ids.tolist() == expected.tolist()
    assert len(problem.kind.features.labels[0]) == expected.shape[1]
    assert problem.tensor.shape[1] == expected.shape[1]


def test_the_output_of_a_decoder_is_the_most_probable_one(tokenizer):
    net = decoding()
    batch = batch_of(tokenizer(TEXT, return_tensors="pt"))
    expected = net.generate(**batch, max_new_tokens=3, do_sample=False)
    problem = Problem(net, TEXT, tokenizer=tokenizer, max_new_tokens=3)
    assert problem.kind.positions.ids.tolist() == expected.tolist()
    assert problem.kind.positions.generated


# ---- errors


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (causal, {"target": (30, 1)}, "position 30 is out of range"),
        (causal, {"target": (3, 99)}, "class 99 is out of range"),
        (causal, {"target": (3, "zebra")}, "'zebra'"),
        (tagger, {"max_new_tokens": 2}, "max_new_tokens: the model doesn't predict the next token"),
        (causal, {"max_new_tokens": 50}, "the text has 25 tokens, but the model has positions for 24"),
        (causal, {"max_new_tokens": -1}, "max_new_tokens"),
    ],
)
def test_invalid_arguments(model, options, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        sw.attribute(model(), TEXT, tokenizer=tokenizer, method="gradient", **options)
    with pytest.raises(ValueError, match="max_new_tokens: it continues a text"):
        sw.attribute(nn.Linear(3, 2), torch.zeros(1, 3), max_new_tokens=2)


def test_the_first_token_has_nothing_before_it(tokenizer):
    positions = Problem(causal(), TEXT, tokenizer=tokenizer).kind.positions
    with pytest.raises(ValueError, match="nothing precedes the first token"):
        positions.explain(0)
    assert positions.explain(3) == (2, 11)
    assert positions.explain(positions.count) == (positions.count - 1, None)
