"""Networks as models of ``transformers``, the real one: what it computes and writes is what the model does."""

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
    "elman-char": {"hidden_size": 8},
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
    """A cell that is a module, whose state is there after the first step alone."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = torch.nn.GRU(input_size, hidden_size)

    def forward(self, x: Any, state: Any) -> Any:
        output, state = self.gru(x, None if state is None else state.transpose(0, 1).contiguous())
        return output, state.transpose(0, 1)


@pytest.fixture(scope="module", params=OPTIONS)
def model(request: pytest.FixtureRequest, reviews: list[str]) -> Any:
    """A network of each kind, before training, with outputs that are far from even."""
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


def new_text(lm: Any, prompts: list[str], **options: Any) -> list[str]:
    """What ``generate`` puts behind prompts."""
    given = lm.tokenizer(prompts, return_tensors="pt", padding=True)
    ids = lm.generate(**given, **options)[:, given["input_ids"].shape[1] :]
    texts: list[str] = lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return texts


def test_logits_and_loss_are_those_of_the_model(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    ids = torch.tensor([[0, *model.tokenizer.encode(TEXTS[1]).tolist(), 1]])

    out = lm(ids, labels=ids)

    logits, _ = model.forward(ids.numpy().T, model.initial_state(1))
    np.testing.assert_allclose(out.logits.detach().transpose(0, 1), logits, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(-out.loss.item() * (ids.shape[1] - 1), model.score(TEXTS[1]).total, rtol=1e-4)


def test_rows_of_padded_texts_are_computed_as_each_alone(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    given = lm.tokenizer(TEXTS, return_tensors="pt", padding=True)
    more = lm.tokenizer(["abc", "d a", " ee"], return_tensors="pt", add_special_tokens=False, padding=True)["input_ids"]

    out = lm(**given)
    then = lm(more, state=out.state)

    for row, text in enumerate(TEXTS):
        alone = lm(lm.tokenizer(text, return_tensors="pt")["input_ids"])
        torch.testing.assert_close(out.logits[row : row + 1, -alone.logits.shape[1] :], alone.logits)
        rest = lm(more[row : row + 1], state=alone.state)
        torch.testing.assert_close(then.logits[row : row + 1], rest.logits, atol=1e-4, rtol=1e-4)


def test_the_likeliest_text_is_that_of_the_model(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)

    prompts = [f"{text}." for text in TEXTS]  # a full stop begins no longer token

    texts = new_text(lm, prompts, max_new_tokens=20)
    again = new_text(lm, prompts, max_new_tokens=20, use_cache=False)

    assert texts == again
    assert [p + t for p, t in zip(prompts, texts, strict=True)] == [
        model.generate(prompt, temperature=0, max_tokens=20) for prompt in prompts
    ]


def test_beams_go_on_with_their_own_states(model: NeuralModel) -> None:
    lm = revgen.to_transformers(model)
    options = {"num_beams": 3, "max_new_tokens": 10}

    assert new_text(lm, TEXTS, **options) == new_text(lm, TEXTS, use_cache=False, **options)


def test_the_tokenizer_gives_texts_back(model: NeuralModel, reviews: list[str]) -> None:
    tokenizer = revgen.to_transformers(model).tokenizer
    for text in ["", " ", "a  b \n\n c", "<s></s><unk>", *reviews[:10]]:
        known = model.tokenizer.decode(i for i in model.tokenizer.encode(text) if i != model.tokenizer.unk_id)
        ids = tokenizer.encode(text)
        assert ids == [0, *model.tokenizer.encode(text)]
        assert tokenizer.decode(ids, skip_special_tokens=True) == known
    assert tokenizer.decode([0, *model.tokenizer.encode("the "), 2, 1]) == "<s>the <unk></s>"
    assert len(tokenizer) == len(model.tokenizer) == len(tokenizer.get_vocab())
    assert tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<unk>", "no such token"]) == [0, 1, 2, 2]


@pytest.fixture(scope="module")
def lstm() -> Any:
    """The pretrained model, for ``transformers``."""
    return revgen.to_transformers(revgen.load("lstm-char"))


def test_a_pipeline_writes_text(lstm: Any, caplog: pytest.LogCaptureFixture) -> None:
    import transformers

    writer = transformers.pipeline("text-generation", model=lstm, tokenizer=lstm.tokenizer)
    assert not caplog.text, "it is said to be no model for this"

    with torch.random.fork_rng():
        torch.manual_seed(0)
        several = writer(["the ", "a song of "], max_new_tokens=20, num_return_sequences=2, batch_size=2)
    likeliest = writer("the ", max_new_tokens=40, do_sample=False)[0]["generated_text"]

    assert [[t["generated_text"][:4] for t in row] for row in several] == [["the "] * 2, ["a so"] * 2]
    assert likeliest == revgen.load("lstm-char").generate("the ", temperature=0, max_tokens=40)


def test_the_program_of_the_documentation_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n([^`]*import pipeline.*?)```", text, re.DOTALL)

    exec(block, {})

    assert capsys.readouterr().out.startswith("the ")


def test_text_is_streamed_and_begins_from_nothing(lstm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import transformers

    ids = lstm.generate(streamer=transformers.TextStreamer(lstm.tokenizer, skip_special_tokens=True), max_new_tokens=30)

    text = revgen.load("lstm-char").generate(temperature=0, max_tokens=30)
    assert lstm.tokenizer.decode(ids[0], skip_special_tokens=True) == text
    assert capsys.readouterr().out == text + "\n"


def test_what_is_trained_there_is_saved_as_a_model_of_revgen(small_model: LanguageModel, tmp_path: Path) -> None:
    lm = revgen.to_transformers(small_model).train()
    before = small_model.score("the song").total
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
    again = type(lm).from_pretrained(tmp_path)
    assert small_model.score("the song").total == before < trained.score("the song").total
    torch.testing.assert_close(again(**batch).logits, lm.eval()(**batch).logits)


def test_what_a_card_tells_holds_for_its_weights_alone() -> None:
    model = revgen.load("lstm-char")
    lm = revgen.to_transformers(model)
    assert "load_as" in lm.to_revgen().metadata
    with torch.no_grad():
        lm.bias[0] += 1
    assert "load_as" not in lm.to_revgen().metadata
    assert "load_as" in model.metadata


def test_a_label_conditions_it(reviews: list[str]) -> None:
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


def test_what_cannot_be_is_said(lstm: Any, reviews: list[str]) -> None:
    counting = revgen.create("kneser-ney-char")
    counting.fit(reviews[:3], progress=False)
    with pytest.raises(revgen.OptionError, match="kneser-ney-char is not a network"):
        revgen.to_transformers(counting)
    with pytest.raises(revgen.NotFittedError, match="gru-char"):
        revgen.to_transformers(revgen.create("gru-char"))
    ids = torch.tensor([[0, 5], [0, 6]])
    with pytest.raises(revgen.OptionError, match="a row that is only padding: 1"):
        lstm(ids, attention_mask=torch.tensor([[0, 1], [0, 0]]))
    with pytest.raises(revgen.OptionError, match="padding between a state and"):
        lstm(ids, attention_mask=torch.tensor([[1, 1], [0, 1]]), state=lstm(ids).state)
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        lstm.generate(ids[:1], prompt_lookup_num_tokens=2)


def test_the_package_is_named_where_it_is_missing(small_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "revgen.interop.transformers", raising=False)

    with pytest.raises(revgen.MissingExtraError, match=r"pip install 'revgen\[transformers\]'"):
        revgen.to_transformers(small_model)


def test_the_evaluation_harness_scores_texts_as_the_model_does(lstm: Any) -> None:
    harness_class = pytest.importorskip("lm_eval.models.huggingface", exc_type=ImportError).HFLM
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    options = {"pretrained": lstm, "tokenizer": lstm.tokenizer, "device": "cpu", "batch_size": 2}
    harness, without_start = harness_class(**options), harness_class(**options, add_bos_token=False)
    model = revgen.load("lstm-char")

    def ask(kind: str, *arguments: Any) -> Any:
        return instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    pairs = [("the ", "song"), ("the ", "xqzv, "), ("a longer beginning of ", "it")]
    given = harness.loglikelihood([ask("loglikelihood", *pair) for pair in pairs])
    rolling = without_start.loglikelihood_rolling([ask("loglikelihood_rolling", "the song")])
    written = harness.generate_until([ask("generate_until", "the ", {"until": ["\n"], "max_gen_toks": 20})])

    def score(text: str) -> Any:
        return model.score(text).logprobs

    # It counts the spaces between the two to the second.
    expected = [score(a + b)[len(a.rstrip()) : -1].sum() for a, b in pairs]
    np.testing.assert_allclose([total for total, _ in given], expected, rtol=1e-4)
    np.testing.assert_allclose(rolling, [score("the song")[:-1].sum()], rtol=1e-4)
    assert "the " + written[0] == model.generate("the ", temperature=0, max_tokens=20, stop="\n")
