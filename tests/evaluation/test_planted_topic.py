"""Words that tell the topic of a sentence: maps lie on them, and the answer turns without them."""

import pytest
import torch

import saliency_widgets as sw
from saliency_widgets.demos import topics
from saliency_widgets.demos.text import SENTENCES, TOPICS

# The sentence around the planted words tells no topic.
PLANTED = [
    ("Last week she talked about {} with all her friends.", "football", "sports"),
    ("Last week she talked about {} with all her friends.", "the election", "politics"),
    ("Last week she talked about {} with all her friends.", "a violin", "music"),
    ("Last week she talked about {} with all her friends.", "her surgery", "medicine"),
    ("Last week she talked about {} with all her friends.", "quantum physics", "science"),
]


@pytest.fixture(scope="module")
def text():
    return topics()


def answer(text, ids, mask=None):
    return TOPICS[int(text.model(ids, mask).argmax())]


def planted_tokens(text, sentence, words):
    """Return the ids of the sentence, (1, T), and whether each token belongs to the words, (T,)."""
    encoded = text.tokenizer(sentence, return_offsets_mapping=True)
    start = sentence.index(words)
    inside = [start <= a < b <= start + len(words) for a, b in encoded["offset_mapping"]]
    return torch.tensor([encoded["input_ids"]]), torch.tensor(inside)


def test_scores_are_scaled_cosine_similarities_to_the_descriptions(text):
    encoder = text.model.encoder.double()
    try:
        pooled = []
        for sentence in (SENTENCES[0], *(f"This sentence is about {topic}." for topic in TOPICS)):
            with torch.no_grad():
                states = encoder(**text.tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
            pooled.append(states.mean(0))
        expected = 20 * torch.cosine_similarity(pooled[0][None], torch.stack(pooled[1:]))
    finally:
        encoder.float()
    encoded = text.tokenizer(SENTENCES[0], return_tensors="pt")
    scores = text.model(encoded["input_ids"], encoded["attention_mask"])[0]
    assert torch.allclose(scores.double(), expected, atol=1e-4)


def test_padding_leaves_the_scores(text):
    encoded = text.tokenizer(list(SENTENCES), return_tensors="pt", padding=True)
    together = text.model(encoded["input_ids"], encoded["attention_mask"])
    alone = [text.model(text.tokenizer(sentence, return_tensors="pt")["input_ids"])[0] for sentence in SENTENCES]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)


def test_each_sentence_has_its_topic(text):
    for sentence, topic in zip(SENTENCES, ("sports", "politics", "food", "medicine"), strict=True):
        assert answer(text, text.tokenizer(sentence, return_tensors="pt")["input_ids"]) == topic


@pytest.mark.parametrize(("frame", "words", "topic"), PLANTED)
def test_maps_lie_on_the_planted_words_and_the_answer_turns_without_them(text, frame, words, topic):
    sentence = frame.format(words)
    ids, planted = planted_tokens(text, sentence, words)
    assert answer(text, ids) == topic
    options = {"tokenizer": text.tokenizer, "target": TOPICS.index(topic), "class_names": text.class_names}
    result = sw.attribute(text.model, sentence, baseline="mask", **options)
    values = torch.tensor(result.by_token()["attribution"].to_numpy())
    assert planted[values.argmax()]
    masked = ids.masked_fill(planted, text.tokenizer.mask_token_id)
    assert answer(text, masked) != topic
    ablated = sw.ablate(text.model, sentence, planted, fill="mask", draws=0, **options)
    assert torch.allclose(torch.as_tensor(ablated.logits_after).flatten(), text.model(masked)[0], atol=1e-4)


def test_the_demo_opens_an_explorer_on_a_sentence_about_sports():
    explorer = sw.demo("text", executor="inline")
    assert explorer.kind == "text"
    assert explorer.controls["target"] == TOPICS.index("sports")
    assert "football" in explorer.view.scene["pieces"]
    explorer.close()
