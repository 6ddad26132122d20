"""Texts: the embeddings of tokens are explained, in models that take ids. The oracle is captum, in float64."""

from contextlib import closing

import pytest
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import nn
from toys import far
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    GPT2Config,
    GPT2ForSequenceClassification,
)

import saliency_widgets as sw
from saliency_widgets.inputs.text.tokens import read_tokens
from saliency_widgets.session import Problem

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "cat", "sat", "on", "mat", "dog", "##s", "a", "good", "movie", "bad"),
]
TEXT = "the cats sat on a good mat"
VOCABULARY = {word: index for index, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizerFast(vocab=VOCABULARY)


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        num_labels=3,
    )
    return BertForSequenceClassification(config).double().eval()


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=24, num_labels=3, pad_token_id=0
    )
    return GPT2ForSequenceClassification(config).double().eval()


class Decoding(nn.Module):
    """An encoder and a decoder that look up the same embedding, the decoder first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(len(WORDS), 5), nn.Linear(5, 3)
        self.double()

    def forward(self, ids):
        start = self.embedding(torch.zeros_like(ids[:, :1])).mean(1)
        return self.head(start * self.embedding(ids).mean(1))


class Mean(nn.Module):
    """The mean of embeddings, or a bag, and a linear layer: each token's share is w · e / T."""

    def __init__(self, mode=None):
        super().__init__()
        torch.manual_seed(0)
        size = len(WORDS)
        self.embedding = nn.Embedding(size, 5) if mode is None else nn.EmbeddingBag(size, 5, mode=mode)
        self.head = nn.Linear(5, 3)
        self.double()

    def forward(self, ids):
        embedded = self.embedding(ids)
        return self.head(embedded if embedded.ndim == 2 else embedded.mean(1))


# ---- oracles


def encoded(tokenizer):
    batch = tokenizer(TEXT, return_tensors="pt")
    special = torch.tensor([[index in tokenizer.all_special_ids for index in batch["input_ids"][0].tolist()]])
    return batch, torch.where(special, batch["input_ids"], tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("model", "path"),
    [(bert, "bert.embeddings.word_embeddings"), (gpt2, "transformer.wte")],
    ids=["BERT", "GPT-2"],
)
def test_integrated_gradients_from_padding_equal_captums(model, path, tokenizer):
    net = model()
    batch, start = encoded(tokenizer)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    result = sw.attribute(net, inputs, tokenizer=tokenizer, target=1, n_steps=32, quadrature="midpoint", tolerance=0)

    def logits(ids, mask):
        return net(input_ids=ids, attention_mask=mask).logits

    theirs = LayerIntegratedGradients(logits, net.get_submodule(path)).attribute(
        batch["input_ids"],
        start,
        target=1,
        additional_forward_args=(batch["attention_mask"],),
        n_steps=32,  # captum's nodes are exact in binary
        method="riemann_middle",
    )
    assert result.values.abs().max() > 0
    assert far(result.values, theirs) < 1e-10
    assert result.settings["baseline"] == "pad"


@pytest.mark.parametrize("model", [bert, gpt2], ids=["BERT", "GPT-2"])
def test_input_x_gradient_equals_captums(model, tokenizer):
    net = model()
    batch, _ = encoded(tokenizer)
    theirs = LayerGradientXActivation(
        lambda ids, mask: net(input_ids=ids, attention_mask=mask).logits, net.get_input_embeddings()
    ).attribute(batch["input_ids"], target=2, additional_forward_args=(batch["attention_mask"],))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    result = sw.attribute(net, inputs, tokenizer=tokenizer, target=2, method="input_x_gradient")
    assert far(result.values, theirs) < 1e-10


def test_only_the_call_that_looks_up_the_text_is_replaced():
    net = Decoding()
    result = sw.attribute(net, "the cat sat", tokenizer=VOCABULARY, target=1, method="gradient")
    expected = net.embedding.weight[0].detach() * net.head.weight[1].detach() / 3
    assert far(result.values, expected.expand(1, 3, 5)) < 1e-12


@pytest.mark.parametrize("mode", [None, "mean", "sum"])
def test_a_linear_bag_of_embeddings_in_closed_form(mode):
    net = Mean(mode)
    ids = torch.tensor([[5, 6, 7, 9]])
    result = sw.attribute(net, "the cat sat mat", tokenizer=VOCABULARY, target=2, baseline="zero", n_steps=4)
    each = net.head.weight[2].detach() * net.embedding.weight[ids].detach() / (1 if mode == "sum" else 4)
    assert far(result.values, each) < 1e-12
    assert far(torch.tensor(result.by_token()["attribution"]), each[0].sum(-1)) < 1e-12
    assert list(result.by_token()["token"]) == ["the", "cat", "sat", "mat"]


def test_a_bag_of_maxima_equals_finite_differences():
    net = Mean("max")
    result = sw.attribute(net, "the cat sat mat", tokenizer=VOCABULARY, target=2, method="gradient")
    embeddings = net.embedding.weight[[5, 6, 7, 9]].detach()
    for index in range(embeddings.numel()):
        moved = embeddings.clone()
        moved.view(-1)[index] += 1e-6
        change = (moved.amax(0) - embeddings.amax(0)) @ net.head.weight[2].detach() / 1e-6
        assert abs(float(result.values.view(-1)[index] - change)) < 1e-6


# ---- forms of input


def test_a_text_its_ids_and_the_tokenizers_output_give_one_map(tokenizer):
    net = bert()
    batch, _ = encoded(tokenizer)
    forms = [TEXT, batch["input_ids"], batch["input_ids"][0].tolist(), batch, dict(batch)]
    maps = [sw.attribute(net, form, tokenizer=tokenizer, target=1, n_steps=4).values for form in forms]
    for one in maps[1:]:
        assert torch.equal(one, maps[0])


def test_several_texts_are_padded_and_equal_single_ones(tokenizer):
    net = bert()
    texts = [TEXT, "a bad movie"]
    both = sw.attribute(net, texts, tokenizer=tokenizer, target=1, method="gradient")
    alone = sw.attribute(net, texts[1], tokenizer=tokenizer, target=1, method="gradient")
    assert far(both.values[1:, :5], alone.values) < 1e-12
    assert both.values[1, 5:].abs().max() == 0


def test_the_pieces_of_a_text_are_the_text(tokenizer):
    tokens = read_tokens("The cats  sat", BertTokenizerFast(vocab=VOCABULARY, do_lower_case=True))
    assert tokens.pieces[0] == ("[CLS]", "The", "cat", "s", "sat", "[SEP]")
    assert tokens.gaps[0] == ("", "", " ", "", "  ", "")
    assert tokens.words == ((-1, 0, 1, 1, 2, -1),)
    assert tokens.special[0].tolist() == [True, False, False, False, False, True]


def test_ids_alone_have_readable_pieces(tokenizer):
    tokens = read_tokens([5, 6, 11, 7], tokenizer)
    assert tokens.pieces == (("the", "cat", "s", "sat"),)
    assert tokens.gaps == (("", " ", "", " "),)


def test_a_function_is_a_tokenizer():
    result = sw.attribute(
        Mean(), "the cat", tokenizer=lambda text: [VOCABULARY[word] for word in text.split()], target=0, n_steps=2
    )
    assert list(result.by_token()["token"]) == ["5", "6"]


def test_the_model_is_not_changed(tokenizer):
    net = bert()
    hooks = [len(module._forward_hooks) for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sw.attribute(net, TEXT, tokenizer=tokenizer, n_steps=4)
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_new_weights_give_new_embeddings(tokenizer):
    net = bert()
    problem = Problem(net, TEXT, tokenizer=tokenizer)
    first = problem.tensor.clone()
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(2)
    problem.version()
    assert torch.equal(problem.tensor, 2 * first)


# ---- baselines


def test_named_baselines_keep_special_tokens(tokenizer):
    net = bert()
    runner = Problem(net, TEXT, tokenizer=tokenizer).runner(sw.attribution.Score("logit", torch.tensor([0])))
    weight = net.get_input_embeddings().weight.detach()
    for name, row in {"pad": weight[0], "unknown": weight[1], "mask": weight[4], "mean": weight.mean(0)}.items():
        baseline = runner.baseline(name, 0)
        assert far(baseline[0, 1:-1], row.expand(8, -1)) < 1e-15, name
        assert torch.equal(baseline[0, [0, -1]], runner.inputs[0, [0, -1]]), name
    assert not runner.baseline("zero", 0).any()
    assert runner.baselines[0] == "pad"


def test_completeness(tokenizer):
    result = sw.attribute(bert(), TEXT, tokenizer=tokenizer, n_steps=256, tolerance=1e-4)
    assert abs(float(result.delta[0])) < 1e-3 * float(result.values.sum().abs())


# ---- errors


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("", {}, ValueError, "the text is empty"),
        (" \n", {}, ValueError, "the text is empty"),
        ("cat " * 40, {}, ValueError, r"the text has 42 tokens, but the model has positions for 24"),
        ([5, 99], {}, ValueError, r"the id 99 .* is out of range: the model's largest embedding has 24 tokens"),
        ([5, -1], {}, ValueError, "the id -1"),
        ([1.5], {}, TypeError, "expected ids as integers"),
        ([], {}, (TypeError, ValueError), "ids"),
        ({"ids": [5]}, {}, ValueError, "a mapping with 'input_ids'"),
        (3.5, {}, TypeError, "expected"),
        (TEXT, {"tokenizer": 3}, TypeError, "expected a Hugging Face tokenizer, a mapping"),
        ("the zebra", {"tokenizer": {"the": 5}}, ValueError, "'zebra' is not in the vocabulary"),
        ("the", {"tokenizer": lambda text: 1 / 0}, ValueError, "it raised ZeroDivisionError"),
        ("the", {"tokenizer": str.split}, TypeError, "it must return ids, got texts"),
        (TEXT, {"transform": str}, ValueError, "transform: it doesn't apply to a text"),
        (TEXT, {"baseline": "black"}, ValueError, "'black' isn't defined for texts"),
    ],
)
def test_invalid_arguments(inputs, options, error, message, tokenizer):
    with pytest.raises(error, match=message):
        sw.attribute(bert(), inputs, **{"tokenizer": tokenizer, "target": 0, "n_steps": 2, **options})


def test_errors_suggest_a_missing_tokenizer(tokenizer):
    for inputs in (TEXT, torch.tensor([[5, 6]]), tokenizer(TEXT, return_tensors="pt")):
        for explain in (sw.attribute, sw.explore, sw.lesson):
            with pytest.raises(ValueError, match="tokenizer="):
                explain(bert(), inputs)


def test_a_model_without_an_embedding_of_the_ids():
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(len(WORDS), 2)

        def forward(self, ids):
            return self.head(nn.functional.one_hot(ids, len(WORDS)).float().mean(1))

    with pytest.raises(ValueError, match="no embedding of the model takes the ids"):
        sw.attribute(OneHot(), "the cat", tokenizer=VOCABULARY)


def test_a_baseline_without_its_token():
    with pytest.raises(ValueError, match=r"the tokenizer has no 'mask' token\. Use one of"):
        sw.attribute(Mean(), "the cat", tokenizer=VOCABULARY, baseline="mask")


def test_another_text_is_a_baseline(tokenizer):
    model, other = bert(), "the dog sat on the movie"
    options = {"tokenizer": tokenizer, "background": other, "target": 1, "n_steps": 32, "tolerance": 0}
    result = sw.attribute(model, TEXT, method="integrated_gradients", baseline="text", quadrature="midpoint", **options)
    assert list(result.by_token()["token"]) == ["[CLS]", "the", "cat", "s", "sat", "on", "a", "good", "mat", "[SEP]"]
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    first = ids.clone()
    first[0, 1:-1] = torch.tensor([VOCABULARY[word] for word in [*other.split(), "[PAD]", "[PAD]"]])
    layer = LayerIntegratedGradients(lambda ids: model(ids).logits, model.bert.embeddings.word_embeddings)
    oracle = layer.attribute(ids, first, target=1, n_steps=32, method="riemann_middle")
    assert far(result.values, oracle.detach()) < 1e-10


def test_expected_gradients_of_a_linear_bag_are_the_differences_from_the_mean_of_other_texts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(len(WORDS), 6, mode="mean"), nn.Linear(6, 3)).double().eval()
    texts = ["the dog sat", "a bad movie"]
    options = {"tokenizer": VOCABULARY, "target": 2, "background": texts}
    result = sw.attribute(model, "good cat mat", method="expected_gradients", n_samples=64, **options)
    ids = torch.tensor([[VOCABULARY[word] for word in text.split()] for text in ["good cat mat", *texts]])
    rows = model[0].weight[ids].detach()
    weight = model[1].weight[2].detach()
    ends = [(weight * (rows[0] - rows[k]) / 3).sum(-1) for k in (1, 2)]
    one, two = ends
    shown = torch.tensor(result.by_token()["attribution"])
    share = (shown - two) / (one - two)  # of the draws, the same for all tokens
    assert far(share, share[:1].expand(3)) < 1e-10
    assert 0.2 < float(share[0]) < 0.8
    assert torch.allclose(share[0] * 64, (share[0] * 64).round())


def test_noise_is_a_share_of_the_deviation_of_each_number_of_the_embeddings(tokenizer):
    model = bert()
    problem = Problem(model, TEXT, tokenizer=tokenizer)
    weight = model.bert.embeddings.word_embeddings.weight.detach()
    assert far(problem.kind.spread(problem.tensor), weight.std(0, correction=0)) < 1e-12


@pytest.mark.parametrize(
    ("background", "error", "message"),
    [
        (3, TypeError, "expected a text or a list of texts"),
        ([], ValueError, "the list is empty"),
        ("", ValueError, "background: the text is empty"),
        (["the cat", "cat " * 9], ValueError, "has 9 tokens, but there are 8 places"),
    ],
)
def test_invalid_other_texts(background, error, message, tokenizer):
    with pytest.raises(error, match=message):
        sw.attribute(bert(), TEXT, tokenizer=tokenizer, background=background)


def test_a_shorter_text_needs_a_token_to_pad_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(4, 6), nn.Linear(6, 3)).double().eval()
    with pytest.raises(ValueError, match="no token to pad it with"):
        sw.attribute(model, "a b c", tokenizer={"a": 0, "b": 1, "c": 2}, background="a b")
    with pytest.raises(ValueError, match="'text' is the first of the other texts"):
        sw.attribute(model, "a b c", tokenizer={"a": 0, "b": 1, "c": 2}, method="integrated_gradients", baseline="text")


def test_a_long_text_is_one_clear_error_for_an_encoder_inside_a_module(tokenizer):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = bert()

        def forward(self, input_ids):
            return self.encoder(input_ids=input_ids).logits

    with pytest.raises(ValueError, match="the text has 42 tokens, but the model has positions for 24"):
        sw.attribute(Wrapped(), "cat " * 40, tokenizer=tokenizer)


class Convolved(nn.Module):
    """A bag of features of single tokens: a convolution of width 1, ReLU, the mean over tokens, a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.conv, self.head = nn.Embedding(12, 5), nn.Conv1d(5, 4, 1), nn.Linear(4, 3)
        self.double()

    def forward(self, ids):
        return self.head(self.conv(self.embedding(ids).mT).relu().mean(2))


def test_grad_cam_of_a_layer_over_tokens_is_a_map_of_tokens():
    model, ids = Convolved(), torch.tensor([[3, 1, 4, 1, 5, 9]])
    result = sw.attribute(model, ids, tokenizer=VOCABULARY, method="grad_cam", layer="conv", target=2)
    activation = model.conv(model.embedding(ids).mT)[0].detach()
    slopes = model.head.weight[2] * (activation > 0).double().mean(1) / 6  # of the mean, averaged over tokens
    expected = (slopes[:, None] * activation).sum(0).relu().detach()
    assert far(torch.from_numpy(result.by_token().attribution.to_numpy()), expected) < 1e-12


def test_the_menu_of_a_text_has_the_methods_that_apply(tokenizer):
    with closing(sw.explore(Convolved(), [3, 1, 4], tokenizer=VOCABULARY, executor="inline")) as explorer:
        assert "grad_cam" in explorer.panel.menu
        assert not {"blur_ig", "guided_grad_cam"} & {*explorer.panel.menu}
        explorer.update(method="layer_cam")
        assert explorer.view.status["state"] == "done"
    with pytest.raises(ValueError, match="method: Grad-CAM needs a layer whose output has positions of the input"):
        sw.explore(bert(), "a good movie", tokenizer=tokenizer, method="grad_cam")
