"""Models of an image and a text, and an input of them."""

import torch
from transformers import CLIPConfig, CLIPModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "dog"]
VOCABULARY = {word: index for index, word in enumerate(WORDS)}
IDS = torch.tensor([[2, 5, 6, 7, 3]])
BOTH = ["pixel_values", "input_ids"]


def clip():
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3, **size}
    vision = {"image_size": 32, "patch_size": 8, **size}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).double().eval()


def pair():
    torch.manual_seed(1)
    return {"input_ids": IDS, "pixel_values": torch.rand(1, 3, 32, 32, dtype=torch.float64)}


class Captioning(torch.nn.Module):
    """Scores each word of a vocabulary after each token, from the words so far and the mean of the pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = torch.nn.Embedding(len(WORDS), 6), torch.nn.Linear(6, len(WORDS))
        self.double()

    def forward(self, input_ids, pixel_values):
        words = self.embedding(input_ids).cumsum(1) * pixel_values.mean((1, 2, 3))[:, None, None]
        return self.head(words)
