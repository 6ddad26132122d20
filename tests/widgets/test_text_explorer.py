"""The explorer of a text: its tokens, its frames, its controls, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from toys import values_on_page

import saliency_widgets as sw
import saliency_widgets.runtime.passes
from saliency_widgets.api.io.document import checksum
from saliency_widgets.session import Problem, Request
from saliency_widgets.session.compute import compute

VOCABULARY = {word: index for index, word in enumerate(["<unk>", "the", "cat", "sat", "on", "mat", "good", "bad"])}
TEXT = "the good cat sat"


def bag():
    """A bag of embeddings with a linear head: the share of each token is known."""
    torch.manual_seed(0)

    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(len(VOCABULARY), 4), nn.Linear(4, 3)

        def forward(self, ids):
            return self.head(self.embedding(ids).mean(1))

    return Bag().double().eval()


@pytest.fixture
def model():
    return bag()


@pytest.fixture
def explorer(model):
    made = sw.explore(
        model, TEXT, tokenizer=VOCABULARY, target=1, baseline="zero", n_steps=4, executor="inline",
        class_names=["a", "b", "c"],
    )  # fmt: skip
    yield made
    made.close()


def test_the_tokens_and_their_values_are_on_the_page(explorer, model):
    assert explorer.kind == "text"
    assert explorer.view.scene["pieces"] == ["the", "good", "cat", "sat"]
    assert explorer.view.scene["gaps"] == ["", " ", " ", " "]
    assert explorer.view.scene["ids"] == [1, 6, 2, 3]
    assert not explorer.view.plain
    expected = (model.head.weight[1] * model.embedding.weight[[1, 6, 2, 3]] / 4).sum(-1).detach().numpy()
    (shown,) = values_on_page(explorer)
    assert explorer.view.frame["signed"]
    assert np.abs(shown - expected).max() <= np.abs(expected).max() / 65534
    assert np.allclose(explorer.attribution.by_token()["attribution"], expected, atol=1e-12)


def test_the_map_of_another_sign_and_norm_needs_no_pass(explorer, model):
    passes = explorer.problem.memory.passes
    explorer.update(sign="absolute", channels="L2")
    assert explorer.problem.memory.passes == passes
    each = (model.head.weight[1] * model.embedding.weight[[1, 6, 2, 3]] / 4).detach()
    expected = each.abs().square().sum(-1).sqrt().numpy()
    assert not explorer.view.frame["signed"]
    assert np.abs(values_on_page(explorer) - expected).max() <= expected.max() / 65534


def test_slopes_are_shown_by_their_norm_and_parts_of_the_score_by_their_sum(explorer, model):
    explorer.update(method="gradient")
    assert (explorer.controls["sign"], explorer.controls["channels"]) == ("absolute", "L2")
    norm = (model.head.weight[1] / 4).square().sum().sqrt().item()
    assert np.allclose(values_on_page(explorer), norm, rtol=1e-4)
    assert np.allclose(explorer.attribution.by_token()["attribution"], norm)
    explorer.update(method="input_x_gradient")
    assert (explorer.controls["sign"], explorer.controls["channels"]) == ("signed", "sum")
    explorer.update(channels="max", method="gradient")
    assert (explorer.controls["sign"], explorer.controls["channels"]) == ("absolute", "max")


def test_the_code_repeats_the_map(explorer, model):
    scope = {"model": model, "inputs": TEXT, "tokenizer": VOCABULARY}
    exec(explorer.to_code(), scope)
    assert torch.equal(scope["attribution"].values, explorer.attribution.values)
    assert scope["shown"].shape == (4,)


def test_training_gives_new_embeddings_at_the_next_move(explorer, model):
    with torch.no_grad():
        model.embedding.weight.mul_(3)
    explorer.update()
    expected = (model.head.weight[1] * model.embedding.weight[[1, 6, 2, 3]] / 4).sum(-1).detach().numpy()
    assert np.abs(values_on_page(explorer) - expected).max() <= np.abs(expected).max() / 65534


def test_the_tokens_of_a_word_share_its_value(tmp_path):
    """A closed form: in a linear bag, the value of a word is the sum over its tokens."""
    from transformers import BertTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "##like", "sat"]
    tokenizer = BertTokenizerFast(vocab={name: index for index, name in enumerate(names)})
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(len(names), 4, mode="sum"), nn.Linear(4, 3)).double().eval()
    made = sw.explore(
        model, "the catslike sat", tokenizer=tokenizer, target=1, baseline="zero", n_steps=4, executor="inline"
    )
    each = (model[0].weight * model[1].weight[1]).sum(-1).detach().numpy()[[2, 5, 6, 7, 8, 9, 3]]
    assert np.allclose(values_on_page(made)[0], each, atol=np.abs(each).max() / 65534)
    made.update(per="word")
    word = each[2:5].sum()
    expected = [*each[:2], word, word, word, *each[5:]]
    assert np.allclose(values_on_page(made)[0], expected, atol=np.abs(expected).max() / 65534)
    assert made.controls["per"] == "word"
    table = made.attribution.by_token(words=True)
    assert list(table["token"]) == ["[CLS]", "the", "catslike", "sat", "[SEP]"]
    assert np.allclose(table["attribution"], [*each[:2], word, *each[5:]], atol=1e-12)
    assert made.panel._per.widget.layout.display != "none"
    loaded = sw.load(made.save_state(tmp_path / "state"), model, tokenizer=tokenizer, executor="inline")
    assert loaded.controls["per"] == "word"
    assert np.array_equal(values_on_page(loaded), values_on_page(made))
    loaded.close()
    made.edit(text="the cat")  # no word of several tokens
    assert made.panel._per.widget.layout.display == "none"
    made.close()


def share_of(model, ids, target=1):
    """The contribution of each token to a class's score, from a baseline of zeros."""
    rows = model.embedding.weight[torch.tensor(ids)] / len(ids)
    return (model.head.weight[target] * rows).sum(-1).detach().numpy()


def edit(explorer, kind, *tokens, text=""):
    explorer.view._on_scene({"type": "scene", "edit": kind, "tokens": list(tokens), "text": text})


def test_everything_follows_an_edit(explorer, model):
    before = explorer.attribution
    for change, pieces, ids in (
        (lambda: edit(explorer, "replace", 1, text="bad"), ["the", "bad", "cat", "sat"], [1, 7, 2, 3]),
        (lambda: edit(explorer, "delete", 0, 1), ["cat", "sat"], [2, 3]),
        (lambda: edit(explorer, "replace", 0, text="the mat"), ["the", "mat", "sat"], [1, 5, 3]),
        (lambda: explorer.edit(text="bad bad mat on mat"), ["bad", "bad", "mat", "on", "mat"], [7, 7, 5, 4, 5]),
    ):
        change()
        assert explorer.view.status["state"] == "done"
        assert explorer.view.scene["pieces"] == pieces
        assert explorer.view.scene["edited"]
        assert explorer.settings["inputs"] == " ".join(pieces)
        (shown,) = values_on_page(explorer)
        expected = share_of(model, ids)
        assert np.abs(shown - expected).max() <= np.abs(expected).max() / 65534
        chances = torch.softmax(model(torch.tensor([ids])), -1)[0].tolist()
        assert {k: share for k, _, share in explorer.panel.predictions} == pytest.approx(dict(enumerate(chances)))
        scope = {"model": model, "inputs": "is assigned", "tokenizer": VOCABULARY}
        exec(explorer.to_code(), scope)
        assert torch.equal(scope["attribution"].values, explorer.attribution.values)
    edit(explorer, "restore")
    assert not explorer.view.scene["edited"]
    assert explorer.attribution is before  # from the cache


def test_estimates_of_a_text_that_is_edited_meanwhile_stay_those_of_that_text(model):
    problem = Problem(model, TEXT, tokenizer=VOCABULARY)
    request = Request.of("smoothgrad", {"n_samples": 4, "chunk_size": 1}, target=1)
    estimates = compute(problem, request)
    first = next(estimates)
    problem.move("the cat")
    problem.version()  # reads the other text
    for later in estimates:
        assert list(later.by_token()["token"]) == list(first.by_token()["token"]) == TEXT.split()


def test_an_edit_that_fails_changes_nothing(explorer, model):
    scene, text = explorer.view.scene, explorer.settings["inputs"]
    for change, message in (
        (lambda: edit(explorer, "delete", 0, 1, 2, 3), "the text is empty"),
        (lambda: edit(explorer, "delete", 17), "token 17 stands for no part of the text"),
        (lambda: edit(explorer, "text", text=None), "expected text=, a text"),
    ):
        change()
        explorer.view.flush()
        assert message in explorer.view.status["message"]
        assert explorer.view.scene == scene
        assert explorer.settings["inputs"] == text
    with pytest.raises(TypeError, match="expected text="):
        explorer.edit(age=3)
    explorer.update(target=2)
    expected = share_of(model, [1, 6, 2, 3], target=2)
    assert np.abs(values_on_page(explorer) - expected).max() <= np.abs(expected).max() / 65534


def test_a_marked_region_ends_with_its_text(explorer):
    explorer.trust._fold.selected_index = 0
    section = explorer.trust._sections[0]
    section.marked(np.array([[True, True, False, False]]))
    assert "Without 50.0% of the text" in section._said.value
    explorer.edit(text="cat sat")
    assert section.region is None
    assert not explorer.trust._message.value
    section.marked(np.array([[True, False]]))
    assert "Without 50.0% of the text" in section._said.value


def test_ids_have_no_text_to_edit(model):
    explorer = sw.explore(model, torch.tensor([1, 6, 2]), tokenizer=VOCABULARY, executor="inline")
    assert "text" not in explorer.view.scene
    edit(explorer, "delete", 1)
    explorer.view.flush()
    assert "single tokens can be edited only in a text" in explorer.view.status["message"]
    explorer.close()


def test_the_trust_tests_of_texts_run(explorer):
    explorer.trust._fold.selected_index = 0
    sections = {section.test.name: section for section in explorer.trust._sections}
    assert [*sections] == ["ablation", "curves", "randomization", "saturation", "stability"]
    results = {}
    for index, (name, section) in enumerate(sections.items()):
        explorer.trust._choice.value = index
        if name == "ablation":
            section.marked(np.array([[True, True, False, False]]))
        results[name] = section._said.value
    model, rows = explorer.problem.model, torch.tensor([[1, 6, 2, 3], [0, 0, 2, 3]])
    whole, without = (float(score) for score in model(rows)[:, 1])  # the fill is the unknown word
    assert f"goes from {whole:.3g} to {without:.3g}" in results["ablation"]
    assert "Without 50.0% of the text" in results["ablation"]
    assert "Deletion: area" in results["curves"]
    assert "its map" in results["randomization"]
    assert "Not saturated" in results["saturation"]  # the model is linear
    assert "Stable" in results["stability"]
    words = "".join(child.value for child in sections["stability"].widget.children if hasattr(child, "value"))
    assert "of all tokens" in words


def test_the_baselines_are_those_of_a_text(explorer):
    assert explorer.problem.baselines == ("unknown", "mean", "zero", "noise")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda explorer, path: explorer.save_png(path), "this explorer shows a text"),
        (lambda explorer, _path: explorer.pin(), "only maps of images"),
    ],
    ids=["image", "pin"],
)
def test_what_texts_do_not_support_is_one_clear_error(explorer, tmp_path, call, message):
    with pytest.raises((NotImplementedError, ValueError), match=message):
        call(explorer, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_state_restores_the_edited_text_and_its_controls(explorer, model, tmp_path):
    explorer.edit(text="bad cat on mat")
    explorer.update(sign="absolute", channels="L2", target=2, method="gradient")
    path = explorer.save_state(tmp_path / "state")
    saved = sw.load(path)
    assert torch.equal(saved.values, explorer.attribution.values)
    assert saved.by_token().equals(explorer.attribution.by_token())
    loaded = sw.load(path, model, tokenizer=VOCABULARY, executor="inline")
    assert loaded.view.scene["pieces"] == ["bad", "cat", "on", "mat"]
    assert loaded.controls == explorer.controls
    assert torch.equal(loaded.attribution.values, explorer.attribution.values)
    loaded.close()
    explorer.edit(text=TEXT)
    explorer.load_state(path)
    assert explorer.settings["inputs"] == "bad cat on mat"
    with pytest.raises(ValueError, match="tokenizer: a state doesn't store it"):
        sw.load(path, model)


def test_a_state_of_ids_and_other_texts(model, tmp_path):
    options = {"tokenizer": VOCABULARY, "executor": "inline", "background": ["the cat", "bad"], "target": 1}
    explorer = sw.explore(model, torch.tensor([1, 6, 2]), method="expected_gradients", n_samples=4, **options)
    loaded = sw.load(explorer.save_state(tmp_path / "state"), model, tokenizer=VOCABULARY, executor="inline")
    assert torch.equal(loaded.attribution.values, explorer.attribution.values)
    assert loaded.view.scene == explorer.view.scene
    for one in (explorer, loaded):
        one.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: None, None),
        (lambda fields: fields.update(text=None), "text: must be present if and only if kind is 'text'"),
        (lambda fields: fields.update(text=3), "text: expected a text, or its ids"),
        (lambda fields: fields["attribution"].update(labels={"tuple": [{"tuple": ["the"]}]}), "labels: must be one"),
        (lambda fields: fields["attribution"].update(labels=None), "groups: must be one"),
        (lambda fields: fields["attribution"].update(groups={"tuple": [{"tuple": [0]}]}), "groups: must be one"),
        (lambda fields: fields["controls"].update(per="sentence"), "'token' or 'word'"),
        (
            lambda fields: fields["attribution"]["settings"].update(time_axis="last"),
            "settings: must be those of a text",
        ),
    ],
)
def test_a_changed_state_of_a_text_is_refused(explorer, tmp_path, change, message):
    path = explorer.save_state(tmp_path / "state")
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps({**fields, "checksum": checksum(fields)}))
    if message is None:
        assert torch.equal(sw.load(path).values, explorer.attribution.values)
        return
    with pytest.raises(ValueError, match=f"path: .*{message}"):
        sw.load(path)


def test_several_texts_are_refused(model):
    with pytest.raises(ValueError, match="the explorer shows one text, got a batch of 2"):
        sw.explore(model, [[1, 2], [3, 4]], tokenizer=VOCABULARY)


# ---- models that score each token


class Causal(nn.Module):
    """The mean of the embeddings so far scores the next token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(len(VOCABULARY), 6), nn.Linear(6, len(VOCABULARY))
        self.double()

    def forward(self, ids):
        embeddings = self.embedding(ids)
        steps = torch.arange(1, ids.shape[1] + 1, dtype=embeddings.dtype)[None, :, None]
        return self.head(torch.tanh(embeddings.cumsum(1) / steps))


@pytest.fixture
def causal():
    made = sw.explore(Causal(), TEXT, tokenizer=VOCABULARY, method="gradient", executor="inline")
    yield made
    made.close()


def click(explorer, token):
    explorer.view._on_message(explorer.view, {"type": "scene", "token": token}, [])


def test_a_state_of_a_language_model_explains_the_same_token(causal, tmp_path):
    click(causal, 2)
    path = causal.save_state(tmp_path / "state")
    assert sw.load(path).settings["target"] == (1, VOCABULARY["cat"])
    loaded = sw.load(path, causal.problem.model, tokenizer=VOCABULARY, executor="inline")
    assert loaded.controls["target"] == (1, VOCABULARY["cat"])
    assert loaded.view.scene == causal.view.scene
    assert torch.equal(loaded.attribution.values, causal.attribution.values)
    loaded.close()


@pytest.mark.parametrize("text", ["the cat", "the good cat sat on the mat"])
def test_after_an_edit_a_language_model_explains_what_follows_the_text(causal, text):
    causal.edit(text=text)
    ids = [VOCABULARY[word] for word in text.split()]
    top = int(causal.problem.model(torch.tensor([ids]))[0, -1].argmax())
    assert causal.attribution.settings["target"] == (len(ids) - 1, top)
    assert causal.view.scene["explained"] == len(ids)
    assert causal.panel.title.endswith(f"after “{text.split()[-1]}”")


def test_while_an_edited_text_is_computed_the_title_is_that_of_the_shown_map(causal):
    title, titles = causal.panel.title, []
    causal.view.offer = lambda frame, status: titles.append((status["state"], status["title"]))
    causal.edit(text="the cat")
    before, *_, after = titles
    assert before == ("running", title)
    assert title.endswith("after “sat”")
    assert after == ("done", causal.panel.title)


def test_a_click_on_a_token_explains_it_by_what_precedes_it(causal):
    assert causal.view.scene["scores"] == "next"
    assert causal.view.scene["explained"] == 4  # the token after the text
    click(causal, 2)
    assert causal.attribution.settings["target"] == (1, VOCABULARY["cat"])
    assert causal.view.scene["explained"] == 2
    assert causal.panel.title == "Gradient · “cat” after “good”"
    shares = causal.problem.model(torch.tensor([[1, 6, 2, 3]])).softmax(-1)[0, 1]
    for index, _, share in causal.panel.predictions:
        assert share == pytest.approx(float(shares[index].detach()))
    click(causal, 4)
    assert causal.attribution.settings["target"][0] == 3
    for wrong in (-1, 7, None, "2", 0):
        click(causal, wrong)
        assert causal.attribution.settings["target"][0] == 3
    causal.view.flush()
    assert "nothing precedes the first token" in causal.view.status["message"]


def test_a_bar_is_another_token_at_the_same_position(causal):
    click(causal, 2)
    causal.panel._on_bar(VOCABULARY["mat"])
    assert causal.attribution.settings["target"] == (1, VOCABULARY["mat"])
    causal.panel._on_search("bad")
    assert causal.attribution.settings["target"] == (1, VOCABULARY["bad"])
    causal.update(target=(2, "sat"))
    assert causal.attribution.settings["target"] == (2, VOCABULARY["sat"])
    assert causal.view.scene["explained"] == 3


def test_another_token_is_a_backward_pass_of_the_same_graph(causal, monkeypatch):
    passes = []
    forward = saliency_widgets.runtime.passes.forward
    monkeypatch.setattr(saliency_widgets.runtime.passes, "forward", lambda *args: passes.append(1) or forward(*args))
    causal.recompute()
    click(causal, 2)
    assert passes
    passes.clear()
    click(causal, 1)
    assert passes == []
    expected = Causal()
    embeddings = expected.embedding.weight[[1]].detach().requires_grad_()
    score = expected.head(torch.tanh(embeddings))[0, VOCABULARY["good"]]
    (gradient,) = torch.autograd.grad(score, embeddings)
    assert torch.allclose(causal.attribution.values[0, :1], gradient)
    assert not causal.attribution.values[0, 1:].any()
