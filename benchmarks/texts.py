"""Speed of texts: a causal language model, whose tokens are explained one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from numerics import Ours
from timing import Row, interleaved, seconds
from transformers import GPT2Config, GPT2LMHeadModel

_WORDS, _TOKENS = 5000, 128


def measure(rounds: int) -> list[Row]:
    """Measure a first color, a click on another token and an edit, beside one bare gradient of the embeddings."""
    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=_WORDS, n_embd=256, n_layer=6, n_head=8, n_positions=256, **special)
    model: Any = GPT2LMHeadModel(config).eval()
    ids = torch.randint(1, _WORDS, (1, _TOKENS))
    ours = Ours(model, ids, tokenizer={f"w{index}": index for index in range(_WORDS)})
    positions = itertools.cycle(range(20, _TOKENS - 1))
    words = itertools.cycle(range(1, _WORDS))

    def explain() -> None:
        at = next(positions)
        ours.ask("gradient", (at, int(ours.x[0, at + 1])))

    def bare() -> None:
        leaf = model.get_input_embeddings()(ours.x).detach().requires_grad_()
        torch.autograd.grad(model(inputs_embeds=leaf).logits[0, next(positions), 7], leaf)

    def first() -> float:
        ours.forget()
        explain()
        assert ours.first is not None
        return ours.first

    def edit() -> None:
        ours.x = ours.x.clone()
        ours.x[0, 5] = next(words)
        ours.problem.move(ours.x)
        explain()

    timers: dict[str, Callable[[], float]] = {
        "gradient": lambda: seconds(bare),
        "first": first,
        "token": lambda: (first(), seconds(explain))[1],
        "edit": lambda: seconds(edit),
    }
    t = interleaved(timers, 3 * rounds)
    one = t["gradient"]
    name = f"GPT-2 of {config.n_layer} layers, {_TOKENS} tokens"
    return [
        Row(name, "first frame, gradient / one gradient", t["first"] / one, 1.3, note=f"one is {one * 1e3:.0f} ms"),
        Row(name, "another token / one gradient", t["token"] / one, 0.6),
        Row(name, "an edited text / one gradient", t["edit"] / one),
    ]
