"""A text and an image, as CLIP takes them: each is explained given the other, or both together."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from image_and_text import BOTH, IDS, VOCABULARY, Captioning, clip, pair
from PIL import Image
from toys import far

import saliency_widgets as sw
from saliency_widgets.session import Problem


def test_a_text_and_an_image_are_explained_each_given_the_other():
    model = clip()
    ids, image = torch.tensor([[2, 5, 6, 7, 3]]), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    both = {"input_ids": ids, "pixel_values": image}

    def score(ids, image):
        return model(input_ids=ids, pixel_values=image).logits_per_image

    layer = LayerIntegratedGradients(score, model.text_model.embeddings.token_embedding)
    start = torch.tensor([[0, 0, 0, 0, 0]])
    oracle = layer.attribute(
        ids,
        start,
        target=0,
        additional_forward_args=(image,),
        n_steps=32,
        method="riemann_middle",
        internal_batch_size=1,
    )
    baseline = model.text_model.embeddings.token_embedding.weight[0].detach().expand(1, 5, -1)
    options = {"n_steps": 32, "quadrature": "midpoint", "tolerance": 0, "target": 0, "baseline": baseline}
    text = sw.attribute(model, both, tokenizer=VOCABULARY, method="integrated_gradients", **options)
    assert far(text.values, oracle.detach()) < 1e-10
    pixels = image.clone().requires_grad_()
    (slope,) = torch.autograd.grad(score(ids, pixels)[0, 0], pixels)
    of_image = sw.attribute(model, both, explain="pixel_values", method="gradient", target=0)
    assert far(of_image.values, slope) < 1e-12
    assert far(of_image.score, text.score) < 1e-12


def embedded(model, embeddings, pixels):
    """Return the score of each image and text, from the embeddings of its tokens, without this package."""
    module = model.text_model.embeddings.token_embedding
    scores = []
    for one, image in zip(embeddings, pixels, strict=True):
        hook = module.register_forward_hook(lambda *_, one=one: one[None])
        scores.append(model(input_ids=IDS, pixel_values=image[None]).logits_per_image[0])
        hook.remove()
    return torch.stack(scores)


def test_one_gradient_with_respect_to_both():
    model, both = clip(), pair()
    embeddings = model.text_model.embeddings.token_embedding(IDS).detach().requires_grad_()
    pixels = both["pixel_values"].clone().requires_grad_()
    slopes = torch.autograd.grad(embedded(model, embeddings, pixels)[0, 0], (embeddings, pixels))
    result = sw.attribute(model, both, tokenizer=VOCABULARY, explain=BOTH, method="gradient", target=0)
    assert result.parts == {"input_ids": (5, 16), "pixel_values": (3, 32, 32)}
    for name, slope in zip(result.parts, slopes, strict=True):
        assert slope.abs().max() > 0
        assert far(result.part(name).values, slope) < 1e-10


def test_one_integration_path_of_both_equals_captums():
    model, both = clip(), pair()
    module = model.text_model.embeddings.token_embedding
    start = module(torch.zeros_like(IDS)).detach(), torch.zeros_like(both["pixel_values"])
    oracle = IntegratedGradients(lambda e, x: embedded(model, e, x)).attribute(
        (module(IDS).detach(), both["pixel_values"]), start, target=0, n_steps=32, method="riemann_middle"
    )
    baseline = {"input_ids": start[0], "pixel_values": "black"}
    options = {"n_steps": 32, "quadrature": "midpoint", "tolerance": 0, "target": 0, "baseline": baseline}
    result = sw.attribute(model, both, tokenizer=VOCABULARY, explain=BOTH, method="integrated_gradients", **options)
    for name, theirs in zip(result.parts, oracle, strict=True):
        assert far(result.part(name).values, theirs) < 1e-10
    change = embedded(model, module(IDS), both["pixel_values"]) - embedded(model, *start)
    assert abs(float(result.values.sum() - result.delta - change[0, 0])) < 1e-12


def test_completeness_of_both():
    model, both = clip(), pair()
    result = sw.attribute(model, both, tokenizer=VOCABULARY, explain=BOTH, n_steps=512, target=0)
    module = model.text_model.embeddings.token_embedding
    start = module(torch.ones_like(IDS)), torch.zeros_like(both["pixel_values"])  # unknown tokens, and black
    change = (embedded(model, module(IDS), both["pixel_values"]) - embedded(model, *start))[0, 0]
    assert result.settings["baseline"] == {"input_ids": "unknown", "pixel_values": "zero"}
    assert abs(float(result.values.sum() - change)) < 1e-3 * abs(float(change))
    assert abs(float(result.values.sum() - change - result.delta[0])) < 1e-12


def test_each_part_is_read_as_its_kind():
    result = sw.attribute(clip(), pair(), tokenizer=VOCABULARY, explain=BOTH, n_steps=8)
    text, image = result.part("input_ids"), result.part("pixel_values")
    table = text.by_token()
    assert list(table["token"]) == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    assert far(torch.tensor(table["attribution"]), text.values[0].sum(-1)) < 1e-15
    assert (text.default_sign, image.default_sign) == ("signed", "absolute")
    assert image.saliency_map().shape == (32, 32)
    with pytest.raises(ValueError, match=r"or from .part\(name\).values"):
        result.saliency_map()
    with pytest.raises(ValueError, match="by_token: the inputs were not texts"):
        image.by_token()


def test_a_picture_is_transformed_and_the_settings_repeat_both():
    model, numbers = clip(), np.random.default_rng(0)
    picture = Image.fromarray(numbers.integers(0, 256, (32, 32, 3), dtype=np.uint8))

    def transform(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 127.5 - 1

    options = {"tokenizer": VOCABULARY, "transform": transform}
    inputs = {"input_ids": IDS, "pixel_values": picture}
    result = sw.attribute(model, inputs, explain=BOTH, n_steps=4, **options)
    assert result.settings["baseline"] == {"input_ids": "unknown", "pixel_values": "black"}
    alone = sw.attribute(model, {**inputs, "pixel_values": transform(picture)[None]}, n_steps=4, tokenizer=VOCABULARY)
    assert torch.equal(alone.values, sw.attribute(model, inputs, n_steps=4, **options).values)
    read = result.settings_from_json(result.to_json())
    assert read["explain"] == BOTH
    again = sw.attribute(model, inputs, transform=transform, **read)
    assert torch.equal(again.values, result.values)


def test_other_inputs_alone_are_explained_given_the_text():
    model, both = clip(), pair()
    without = sw.attribute(model, both, explain="pixel_values", method="gradient", target=0)
    alone = sw.attribute(model, both, explain="pixel_values", method="gradient", target=0, tokenizer=VOCABULARY)
    assert torch.equal(alone.values, without.values)
    ids = sw.attribute(model, both, explain="input_ids", method="gradient", target=0, tokenizer=VOCABULARY)
    assert torch.equal(ids.values, sw.attribute(model, both, method="gradient", target=0, tokenizer=VOCABULARY).values)


def test_new_weights_give_new_embeddings_of_both():
    model = clip()
    problem = Problem(model, pair(), tokenizer=VOCABULARY, explain=BOTH)
    first = problem.tensor.clone()
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight.mul_(2)
    problem.version()
    assert torch.equal(problem.tensor[:, : 5 * 16], 2 * first[:, : 5 * 16])
    assert torch.equal(problem.tensor[:, 5 * 16 :], first[:, 5 * 16 :])


def test_grad_cam_explains_the_image_of_both():
    model, both = clip(), pair()
    options = {"method": "grad_cam", "target": 0, "layer": "vision_model.encoder.layers.0"}
    alone = sw.attribute(model, both, explain="pixel_values", **options)
    assert torch.equal(sw.attribute(model, both, explain=BOTH, tokenizer=VOCABULARY, **options).values, alone.values)


def test_a_model_that_scores_each_token():
    model, both = Captioning(), pair()
    result = sw.attribute(model, both, tokenizer=VOCABULARY, explain=BOTH, method="gradient", target=(2, 6))
    row, bright = model.head.weight[6].detach(), both["pixel_values"].mean()
    of_tokens = torch.cat([(row * bright).expand(3, 6), torch.zeros(2, 6)])
    assert far(result.part("input_ids").values[0], of_tokens) < 1e-12
    of_pixels = (model.embedding(IDS)[0, :3].sum(0) @ row).detach() / (3 * 32 * 32)
    assert far(result.part("pixel_values").values, of_pixels.expand(1, 3, 32, 32)) < 1e-12


@pytest.mark.parametrize(
    ("inputs", "explain", "message"),
    [
        (pair(), ["pixel_values", "image"], "explain: 'image' is not known. Known: 'input_ids', 'pixel_values'"),
        (pair() | {"attention_mask": torch.ones_like(IDS)}, ["attention_mask"], "'attention_mask' holds torch.int64"),
        (pair() | {"size": torch.rand(1, 2)}, ["input_ids", "size"], "the model's forward doesn't take 'size'"),
        (pair() | {"pixel_values": torch.rand(2, 3, 32, 32)}, BOTH, "the same number of samples in all explained"),
        ("the cat", BOTH, "explain: there is only a text"),
    ],
)
def test_invalid_names(inputs, explain, message):
    with pytest.raises(ValueError, match=message):
        sw.attribute(clip(), inputs, tokenizer=VOCABULARY, explain=explain, n_steps=2)


def test_what_takes_one_input_says_so():
    model, both = clip(), pair()
    both_names = r"one of \['input_ids', 'pixel_values'\]"
    options = {"tokenizer": VOCABULARY, "explain": BOTH}
    with pytest.raises(ValueError, match=f"explain: a comparison shows one input. Pass {both_names}"):
        sw.compare(model, [both, both], **options)
    with pytest.raises(ValueError, match=f"explain: this check covers one input. Pass explain= {both_names}"):
        sw.evaluate(model, both, ["gradient"], **options)
    with pytest.raises(ValueError, match=r"explain: a sweep explains one input. Pass explain= one of"):
        sw.sweep(model, [both], "integrated_gradients", {"n_steps": [2]}, tokenizer=VOCABULARY, explain=BOTH)
