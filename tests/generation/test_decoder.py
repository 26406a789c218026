"""The decoder: batches that join and leave at any token have the texts that they have alone."""

from __future__ import annotations

from typing import Any

import pytest

import revgen
from revgen import GenerationConfig, LanguageModel
from revgen.generation.batch import Batch
from revgen.generation.constraints import Constraints
from revgen.generation.decoder import TOKENS_IN_STEP, Decoder

LONG = "on this album the band plays one song after another, and the guitars are loud " * 2
CALLS: list[tuple[int, list[str], int, dict[str, Any]]] = [
    (0, ["the "], 1, {}),
    (0, ["a much longer beginning than the first"], 1, {"temperature": 0.7}),
    (3, [""], 2, {"top_p": 0.9}),
    (3, [LONG], 1, {"max_tokens": 5}),
    (5, ["so ", "and then "], 2, {"frequency_penalty": 0.5, "presence_penalty": 0.2}),
    (9, ["the "], 1, {"regex": "[a-z ]{8,20}"}),
    (9, ["the "], 1, {"temperature": [0.1, 2.0, 0.5]}),
    (10, ["the "], 3, {"stop": ["e", "an"], "min_tokens": 3}),
    (30, ["the "], 1, {"top_p": 0.9, "logit_bias": {5: 1.0}}),
    (60, ["the last"], 1, {"temperature": 0}),
]
"""The step at which each call joins, its prompts, ``n`` and options."""


@pytest.fixture(scope="module")
def models(reviews: list[str]) -> dict[str, LanguageModel]:
    """A small model of each kind of state."""
    made: dict[str, LanguageModel] = {}
    configurations: list[tuple[str, Any]] = [
        ("lstm-char", {"hidden_size": 16}),
        ("slstm-char", {"hidden_size": 16}),
        ("transformer-subword", {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context": 24}),
        ("mlp-word", {"hidden_size": 16, "context": 5}),
        ("kneser-ney-char", {"order": 4}),
        ("cm-char", {}),
    ]
    for name, options in configurations:
        made[name] = revgen.create(name, **options)
        training: Any = {} if "ney" in name else {"epochs": 1}
        made[name].fit(reviews[:20], progress=False, **training)
    lstm = revgen.create("lstm-char", hidden_size=8, tokenizer=made["kneser-ney-char"].tokenizer)
    lstm.fit(reviews[:10], epochs=1, progress=False)
    made["mixture"] = revgen.mix([made["kneser-ney-char"], lstm])
    return made


def make_batch(model: LanguageModel, prompts: list[str], n: int, **options: Any) -> Batch:
    """Return the texts of one call."""
    config = GenerationConfig(**options)
    constraints = Constraints(model, config)
    begun = [constraints.begin(prompt, model.encode_prompt(prompt)) for prompt in prompts]
    return Batch(model, constraints, begun, config.seed, n)


def run(decoder: Decoder, texts: dict[Batch, list[str]], steps: int = 1 << 30, max_tokens: int | None = None) -> None:
    """Continue the batches of a decoder, for a number of steps or until all have ended, and add to their texts."""
    for _ in range(steps):
        decoder.read_prompts(max_tokens)
        if not decoder.num_rows:
            return
        for batch, pieces in decoder.sample() if decoder.batches else ():
            for row, piece in pieces:
                texts[batch][row] += piece
        decoder.forward()


@pytest.mark.parametrize(
    "name", ["lstm-char", "slstm-char", "transformer-subword", "mlp-word", "kneser-ney-char", "cm-char", "mixture"]
)
@pytest.mark.parametrize("max_tokens", [None, 7])
def test_texts_that_join_at_any_token_are_those_of_generate(
    models: dict[str, LanguageModel], name: str, max_tokens: int | None
) -> None:
    model, decoder = models[name], Decoder(models[name])
    texts: dict[Batch, list[str]] = {}
    calls = []
    for step in range(61):
        for i, (begin, prompts, n, own_options) in enumerate(CALLS):
            if begin == step:
                options = {"max_tokens": 40, "seed": i, **own_options}
                batch = make_batch(model, prompts, n, **options)
                calls.append((batch, prompts, n, options))
                texts[batch] = [prompt for prompt in prompts for _ in range(n)]
                decoder.add(batch)
        run(decoder, texts, 1, max_tokens)
    run(decoder, texts, max_tokens=max_tokens)

    for batch, prompts, n, options in calls:
        alone = model.generate(prompts, n=n, **options)
        assert texts[batch] == [text for row in alone for text in row], options


def test_a_batch_that_is_removed_leaves_the_others_as_they_are(models: dict[str, LanguageModel]) -> None:
    model = models["lstm-char"]
    decoder = Decoder(model)
    batches = [make_batch(model, ["the "], 2, seed=i, max_tokens=40) for i in range(3)]
    waiting = make_batch(model, [LONG], 1, seed=9, max_tokens=5)
    texts = {batch: ["the "] * 2 for batch in batches}
    for batch in batches:
        decoder.add(batch)
    run(decoder, texts, 5)

    decoder.remove(batches[1])
    decoder.add(waiting)
    decoder.remove(waiting)
    run(decoder, texts)

    for i in (0, 2):
        assert texts[batches[i]] == model.generate("the ", n=2, seed=i, max_tokens=40)
    assert all(len(text) < 15 for text in texts[batches[1]])


def test_calls_with_equal_filters_are_sampled_together(models: dict[str, LanguageModel]) -> None:
    model = models["lstm-char"]
    decoder = Decoder(model)
    for seed in range(8):
        options: Any = {"top_k": 5} if seed % 2 else {}
        options |= {"temperature": 1 + seed / 10, "banned_tokens": [model.tokenizer.eos_id]}
        decoder.add(make_batch(model, ["the "], 1, seed=seed, **options))
    run(decoder, {batch: [""] for batch in decoder.waiting}, TOKENS_IN_STEP)

    decoder.sample()

    assert [len(group.members) for group in decoder._groups or ()] == [4, 4]
