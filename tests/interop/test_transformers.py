"""Converted networks compute and generate the same with ``transformers`` as with revgen."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.language_model import LanguageModel

pytest.importorskip("transformers")

OPTIONS: dict[str, dict[str, Any]] = {
    "elman-char": {"hidden_size": 8, "ngram_heads": (1, 2)},
    "lstm-subword": {"hidden_size": 8},
    "gru-word": {"hidden_size": 8, "embedding_size": 6, "residual": False},
    "rglru-char": {"hidden_size": 8},
    "graves-lstm-char": {"hidden_size": 8, "num_layers": 2},
    "awd-lstm-char": {"hidden_size": 8, "embedding_size": 8, "beta": 1.0},
    "textgenrnn-char": {"hidden_size": 8, "embedding_size": 8},
    "mlp-char": {"hidden_size": 8, "context": 4},
    "transformer-char": {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "context": 12},
    "module-char": {"hidden_size": 8},
}
TEXTS = ["the first song", "a guitar, and nothing more than that", "drums"]


class ModuleGRU(torch.nn.Module):
    """A module as a cell, whose initial state is None."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(input_size, hidden_size)

    def forward(self, x: Any, state: Any) -> Any:
        output, state = self.gru(x, None if state is None else state.transpose(0, 1).contiguous())
        return output, state.transpose(0, 1)


@pytest.fixture(scope="module", params=OPTIONS)
def model(request: pytest.FixtureRequest, reviews: list[str]) -> Any:
    """An untrained network of each kind, with enlarged weights so that the most likely token is clear."""
    from revgen.registry import cells, tokenizers

    name = request.param
    if name == "module-char":
        revgen.register_cell("module")(ModuleGRU)
    options = {"vocab_size": 400} if name.endswith("subword") else {}
    tokenizer = tokenizers.get(name.rpartition("-")[2]).train(reviews[:20], **options)
    model = revgen.create(name, tokenizer=tokenizer, **OPTIONS[name])
    assert isinstance(model, NeuralModel)
    weights = model.init_params(np.random.default_rng(0))
    model.weights = weights | {name: 3 * weights[name] for name in ("embedding", "head") if name in weights}
    yield model
    if name == "module-char":
        cells.unregister("module")


def generate_continuations(lm: Any, prompts: list[str], **options: Any) -> list[str]:
    """Return the text that ``generate`` adds to each prompt."""
    batch = lm.tokenizer(prompts, return_tensors="pt", padding=True)
    ids = lm.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    continuations: list[str] = lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return continuations


def test_logits_and_loss_equal_the_ones_of_revgen(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    ids = torch.tensor([[0, *model.tokenizer.encode(TEXTS[1]).tolist(), 1]])

    out = lm(ids, labels=ids)

    logits, _ = model.forward(ids.numpy().T, model.initial_state(1))
    np.testing.assert_allclose(out.logits.detach().transpose(0, 1), logits, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(-out.loss.item() * (ids.shape[1] - 1), model.score(TEXTS[1]).total, rtol=1e-4)


def test_padded_batch_has_the_logits_of_unpadded_texts(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    batch = lm.tokenizer(TEXTS, return_tensors="pt", padding=True)
    next_texts = ["abc", "d a", " ee"]
    next_ids = lm.tokenizer(next_texts, return_tensors="pt", add_special_tokens=False, padding=True)["input_ids"]

    out = lm(**batch)
    next_out = lm(next_ids, state=out.state)

    for row, text in enumerate(TEXTS):
        single = lm(lm.tokenizer(text, return_tensors="pt")["input_ids"])
        torch.testing.assert_close(out.logits[row : row + 1, -single.logits.shape[1] :], single.logits)
        next_single = lm(next_ids[row : row + 1], state=single.state)
        torch.testing.assert_close(next_out.logits[row : row + 1], next_single.logits, atol=1e-4, rtol=1e-4)


def test_greedy_search_generates_the_text_of_revgen(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    prompts = [f"{text}." for text in TEXTS]  # no token starts with a full stop and continues

    texts = generate_continuations(lm, prompts, max_new_tokens=20)
    uncached = generate_continuations(lm, prompts, max_new_tokens=20, use_cache=False)

    assert texts == uncached
    assert [prompt + text for prompt, text in zip(prompts, texts, strict=True)] == [
        model.generate(prompt, temperature=0, max_tokens=20) for prompt in prompts
    ]


def test_beam_search_reorders_the_states(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    options = {"num_beams": 3, "max_new_tokens": 10}

    assert generate_continuations(lm, TEXTS, **options) == generate_continuations(lm, TEXTS, use_cache=False, **options)


def test_decode_returns_the_encoded_text(model: NeuralModel, reviews: list[str]) -> None:
    tokenizer = revgen.to_transformers(model).tokenizer
    for text in ["", " ", "a  b \n\n c", "<s></s><unk>", *reviews[:10]]:
        known_text = model.tokenizer.decode(i for i in model.tokenizer.encode(text) if i != model.tokenizer.unk_id)
        ids = tokenizer.encode(text)
        assert ids == [0, *model.tokenizer.encode(text)]
        assert tokenizer.decode(ids, skip_special_tokens=True) == known_text
    assert tokenizer.decode([0, *model.tokenizer.encode("the "), 2, 1]) == "<s>the <unk></s>"
    assert len(tokenizer) == len(model.tokenizer) == len(tokenizer.get_vocab())
    assert tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<unk>", "no such token"]) == [0, 1, 2, 2]


@pytest.fixture(scope="module")
def lstm() -> Any:
    """The pretrained model ``lstm-char``, converted."""
    return revgen.to_transformers(revgen.load("lstm-char"))


def test_pipeline_samples_and_generates_greedily(lstm: Any, caplog: pytest.LogCaptureFixture) -> None:
    import transformers

    generator = transformers.pipeline("text-generation", model=lstm, tokenizer=lstm.tokenizer)
    assert not caplog.text, "the pipeline warns that it does not support the model"

    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = generator(["the ", "a song of "], max_new_tokens=20, num_return_sequences=2, batch_size=2)
    greedy = generator("the ", max_new_tokens=40, do_sample=False)[0]["generated_text"]

    assert [[sample["generated_text"][:4] for sample in row] for row in samples] == [["the "] * 2, ["a so"] * 2]
    assert greedy == revgen.load("lstm-char").generate("the ", temperature=0, max_tokens=40)


def test_pipeline_example_in_the_documentation_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n([^`]*import pipeline.*?)```", text, re.DOTALL)

    exec(example, {})

    assert capsys.readouterr().out.startswith("the ")


def test_text_is_streamed_without_a_prompt(lstm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import transformers

    streamer = transformers.TextStreamer(lstm.tokenizer, skip_special_tokens=True)
    ids = lstm.generate(streamer=streamer, max_new_tokens=30, do_sample=False)

    text = revgen.load("lstm-char").generate("", temperature=0, max_tokens=30)
    assert lstm.tokenizer.decode(ids[0], skip_special_tokens=True) == text
    assert capsys.readouterr().out == text + "\n"


def test_weights_trained_in_pytorch_are_saved_for_revgen(small_model: LanguageModel, tmp_path: Path) -> None:
    lm = revgen.to_transformers(small_model).train()
    score_before = small_model.score("the song").total
    batch = lm.tokenizer(["the song"] * 2, return_tensors="pt")
    optimizer = torch.optim.SGD(lm.parameters(), 0.1)
    losses = []
    for _ in range(5):
        losses.append(lm(**batch, labels=batch["input_ids"]).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]

    lm.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)

    trained = revgen.load(tmp_path)
    reloaded = type(lm).from_pretrained(tmp_path)
    assert small_model.score("the song").total == score_before < trained.score("the song").total
    torch.testing.assert_close(reloaded(**batch).logits, lm.eval()(**batch).logits)


def test_metadata_of_a_published_model_is_dropped_when_weights_change() -> None:
    model = revgen.load("lstm-char")
    lm = revgen.to_transformers(model)
    assert "load_as" in lm.to_revgen().metadata
    with torch.no_grad():
        lm.bias[0] += 1
    assert "load_as" not in lm.to_revgen().metadata
    assert "load_as" in model.metadata


def test_label_conditions_the_loss(reviews: list[str]) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=8)
    model.fit(reviews[:6], labels=["jazz", "rock"] * 3, epochs=1, progress=False)
    model.weights["labels"][1:] = np.random.default_rng(0).normal(size=model.weights["labels"][1:].shape)
    for label in (None, "jazz", "rock"):
        lm = revgen.to_transformers(model, label=label)
        ids = torch.tensor([[0, *model.tokenizer.encode("the song").tolist(), 1]])
        loss = lm(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        assert -loss == pytest.approx(model.score("the song", label=label).total, rel=1e-4)
    with pytest.raises(revgen.OptionError, match="label"):
        revgen.to_transformers(model, label="polka")


def test_model_that_is_not_a_fitted_network_raises(reviews: list[str]) -> None:
    ngram_model = revgen.create("kneser-ney-char")
    ngram_model.fit(reviews[:3], progress=False)
    with pytest.raises(revgen.OptionError, match="kneser-ney-char is not a network"):
        revgen.to_transformers(ngram_model)
    with pytest.raises(revgen.NotFittedError, match="gru-char"):
        revgen.to_transformers(revgen.create("gru-char"))


def test_padding_that_the_state_cannot_represent_raises(lstm: Any) -> None:
    ids = torch.tensor([[0, 5], [0, 6]])
    with pytest.raises(revgen.OptionError, match="a row that is only padding: 1"):
        lstm(ids, attention_mask=torch.tensor([[0, 1], [0, 0]]))
    with pytest.raises(revgen.OptionError, match="padding between a state and"):
        lstm(ids, attention_mask=torch.tensor([[1, 1], [0, 1]]), state=lstm(ids).state)


def test_speculative_decoding_raises(lstm: Any) -> None:
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        lstm.generate(torch.tensor([[0, 5]]), prompt_lookup_num_tokens=2)


def test_missing_transformers_raises_with_the_install_command(
    small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "revgen.interop.transformers", raising=False)

    with pytest.raises(revgen.MissingExtraError, match=r"pip install 'revgen\[transformers\]'"):
        revgen.to_transformers(small_model)


def test_evaluation_harness_computes_the_scores_of_revgen(lstm: Any) -> None:
    harness_class = pytest.importorskip("lm_eval.models.huggingface", exc_type=ImportError).HFLM
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    options = {"pretrained": lstm, "tokenizer": lstm.tokenizer, "device": "cpu", "batch_size": 2}
    harness, harness_without_bos = harness_class(**options), harness_class(**options, add_bos_token=False)
    model = revgen.load("lstm-char")

    def request(request_type: str, *arguments: Any) -> Any:
        return instance(request_type=request_type, doc={}, arguments=arguments, idx=0)

    pairs = [("the ", "song"), ("the ", "xqzv, "), ("a longer beginning of ", "it")]
    conditional = harness.loglikelihood([request("loglikelihood", *pair) for pair in pairs])
    rolling = harness_without_bos.loglikelihood_rolling([request("loglikelihood_rolling", "the song")])
    generated = harness.generate_until([request("generate_until", "the ", {"until": ["\n"], "max_gen_toks": 20})])

    def score(text: str) -> Any:
        return model.score(text).logprobs

    # The harness moves trailing spaces of the context to the continuation.
    expected = [score(context + text)[len(context.rstrip()) : -1].sum() for context, text in pairs]
    np.testing.assert_allclose([total for total, _ in conditional], expected, rtol=1e-4)
    np.testing.assert_allclose(rolling, [score("the song")[:-1].sum()], rtol=1e-4)
    assert "the " + generated[0] == model.generate("the ", temperature=0, max_tokens=20, stop="\n")
