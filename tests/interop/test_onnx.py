"""Exported ONNX graphs compute and generate the same in ONNX Runtime as the model in revgen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.cli import main
from revgen.language_model import LanguageModel
from revgen.ops import log_softmax

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

OPTIONS: dict[str, dict[str, Any]] = {
    "elman-char": {"hidden_size": 8},
    "gru-word": {"hidden_size": 8, "embedding_size": 6, "residual": False, "ngram_heads": (1, 2)},
    "textgenrnn-char": {"hidden_size": 8},
    "rglru-char": {"hidden_size": 8},
    "mlp-char": {"hidden_size": 8, "context": 4},
    "transformer-char": {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "context": 6},
}


class OnnxModel:
    """A model that is run from the ONNX graph and its metadata, without revgen."""

    def __init__(self, path: Path, batch: int) -> None:
        self.session = onnxruntime.InferenceSession(path)
        metadata = json.loads(self.session.get_modelmeta().custom_metadata_map["revgen"])
        dtypes = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
        state_inputs = self.session.get_inputs()[1:]
        self.state = [
            np.full((batch, *entry["shape"]), entry["begin"], dtypes[state_input.type])
            for state_input, entry in zip(state_inputs, metadata["state"], strict=True)
        ]

    def step(self, tokens: Any) -> Any:
        """Feed tokens (batch,), keep the next state and return logits (batch, vocab)."""
        state = {f"state.{i}": array for i, array in enumerate(self.state)}
        logits, *self.state = self.session.run(None, {"tokens": np.asarray(tokens, np.int64), **state})
        return logits


@pytest.fixture(scope="module")
def tokenizers(reviews: list[str]) -> dict[str, Any]:
    """A tokenizer of characters and one of words."""
    from revgen.tokenizers import CharTokenizer, WordTokenizer

    return {"char": CharTokenizer.train(reviews[:20]), "word": WordTokenizer.train(reviews[:20])}


@pytest.mark.parametrize("name", OPTIONS)
def test_graph_computes_the_log_probabilities_of_the_model(
    name: str, tokenizers: dict[str, Any], reviews: list[str], tmp_path: Path
) -> None:
    from revgen.interop.onnx import export

    model = revgen.create(name, tokenizer=tokenizers[name.rpartition("-")[2]], **OPTIONS[name])
    assert isinstance(model, NeuralModel)
    model.weights = model.init_params(np.random.default_rng(0))

    path = export(model, tmp_path / "exported" / "graph.onnx")

    rows = [[0, *model.tokenizer.encode(text)[:20]] for text in reviews[:3]]
    onnx_model = OnnxModel(path, len(rows))
    steps = [onnx_model.step(tokens) for tokens in zip(*rows, strict=True)]
    logits, _ = model.forward(np.array(rows).T, model.initial_state(len(rows)))
    np.testing.assert_allclose(log_softmax(np.stack(steps)), log_softmax(logits), atol=1e-4)
    assert (path.parent / model.tokenizer.file).read_bytes() == model.tokenizer.to_bytes()


def test_graph_exported_by_the_command_line_generates_the_same_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "lstm-char", str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())

    tokens = json.loads((tmp_path / "vocabulary.json").read_text("utf-8"))["tokens"]
    onnx_model, ids = OnnxModel(path, 1), [0, *(tokens.index(c) for c in "the ")]
    for token in ids:
        logits = onnx_model.step([token])
    for _ in range(60):
        ids.append(int(logits[0].argmax()))
        logits = onnx_model.step(ids[-1:])

    text = "".join(tokens[i] for i in ids[1:])
    assert text == revgen.load("lstm-char").generate("the ", temperature=0, max_tokens=60)


@pytest.mark.parametrize("name", ["kneser-ney-char", "module-char"])
def test_model_without_a_numpy_network_raises(name: str, reviews: list[str], tmp_path: Path) -> None:
    import torch

    from revgen.interop.onnx import export
    from revgen.registry import cells

    revgen.register_cell("module")(torch.nn.GRU)
    try:
        model: LanguageModel = revgen.create(name)
        epochs: dict[str, Any] = {"epochs": 1} if name.startswith("module") else {}
        model.fit(reviews[:3], progress=False, **epochs)
        with pytest.raises(revgen.OptionError, match=f"{name} cannot be exported"):
            export(model, tmp_path)
    finally:
        cells.unregister("module")


def test_onnx_example_in_the_documentation_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    command = re.findall(r"^revgen (.*)$", text, re.MULTILINE)[0]
    assert main(command.split()) == 0
    capsys.readouterr()

    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})

    assert capsys.readouterr().out == revgen.load("lstm-char").generate("the ", temperature=0, max_tokens=100) + "\n"
