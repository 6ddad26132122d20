"""The findings of the check-up about texts: each with the fault, and none without it."""

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import saliency_widgets as sw

WORDS = ["<pad>", "<unk>", "the", "cat", "sat", "on", "mat", "good", "bad"]
VOCABULARY = {word: index for index, word in enumerate(WORDS)}
PADDED = {"input_ids": torch.tensor([[2, 3, 4, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}


class Bag(nn.Module):
    """A bag of embeddings, which ignores padding or not."""

    def __init__(self, *, masked):
        super().__init__()
        torch.manual_seed(0)
        self.masked, self.embedding, self.head = masked, nn.Embedding(len(WORDS), 6), nn.Linear(6, 3)
        self.double().eval()

    def forward(self, input_ids, attention_mask=None):
        rows = self.embedding(input_ids)
        if self.masked and attention_mask is not None:
            rows = rows * attention_mask[..., None]
        return self.head(torch.tanh(rows).sum(1))


def findings_of(model, inputs):
    return [finding.what for finding in sw.checkup(model, inputs, tokenizer=VOCABULARY)]


def test_unknown_tokens():
    words = "2 of 4 tokens are unknown to the tokenizer ('zebra', 'yak')"
    assert any(words in what for what in findings_of(Bag(masked=True), "the zebra sat yak"))
    assert not any("unknown" in what for what in findings_of(Bag(masked=True), "the cat sat"))


def test_padding_that_moves_the_score():
    assert any("depends on the padding" in what for what in findings_of(Bag(masked=False), PADDED))
    assert not any("padding" in what for what in findings_of(Bag(masked=True), PADDED))
    assert not any("padding" in what for what in findings_of(Bag(masked=False), "the cat sat"))


def test_a_text_that_fills_the_model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=8,
    )  # fmt: skip
    model = BertForSequenceClassification(config).double().eval()
    full = "The text fills all 8 positions of the model"
    assert any(full in what for what in findings_of(model, "the cat " * 4))
    assert not any(full in what for what in findings_of(model, "the cat " * 3))
