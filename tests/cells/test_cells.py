"""Tests of the registered cells, of custom cells, and of the network around cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen.networks.network import network_forward
from revgen.networks.stack import make_cell
from revgen.ops import relu
from revgen.registry import cells
from revgen.testing import check_cell


@pytest.fixture(autouse=True)
def registered_names() -> Iterator[None]:
    """Unregister what a test registers."""
    before = cells.names()
    yield
    for name in set(cells.names()) - set(before):
        cells.unregister(name)


def register_relu_rnn() -> type[revgen.Cell]:
    """Register the example of the documentation, as it is printed there."""

    @revgen.register_cell("relu-rnn")
    class ReluRNN(revgen.Cell):
        """h' = relu(x W + h U + b)."""

        def param_shapes(self):  # type: ignore[no-untyped-def]  # parameters, by name
            return {
                "W": (self.input_size, self.hidden_size),
                "U": (self.hidden_size, self.hidden_size),
                "b": (self.hidden_size,),
            }

        def project(self, p, x):  # type: ignore[no-untyped-def]  # all time steps at once: (time, batch, input)
            return x @ p.W + p.b

        def step(self, p, z, h):  # type: ignore[no-untyped-def]  # one time step: (batch, …), state -> output, state
            h = relu(z + h @ p.U)
            return h, h

    return ReluRNN


def register_module() -> type[torch.nn.Module]:
    """Register a PyTorch module that reads a whole sequence as a cell."""

    @revgen.register_cell("module-gru")
    class ModuleGRU(torch.nn.Module):
        def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(input_size, hidden_size, bias=bias)

        def forward(self, x: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
            output, last = self.gru(x, None if state is None else state[None])
            return output, last[0]

    return ModuleGRU


REGISTER: dict[str, Callable[[], type[Any]]] = {"relu-rnn": register_relu_rnn, "module-gru": register_module}


@pytest.mark.parametrize("name", cells.names())
def test_every_registered_cell_passes_check_cell(name: str) -> None:
    check_cell(name)


def test_rnn_with_relu_passes_check_cell() -> None:
    check_cell("rnn", nonlinearity="relu")


@pytest.mark.parametrize("name", [name for name in cells.names() if cells.get(name).fused_kernel])
def test_models_of_cells_with_fused_kernels_agree_on_numpy_and_torch(name: str, reviews: list[str]) -> None:
    model = revgen.create(f"{name}-char", hidden_size=16)
    model.fit(reviews[:10], epochs=1, progress=False)

    assert_backends_agree(model)


# Custom cells


@pytest.mark.parametrize("name", REGISTER)
def test_custom_cell_passes_check_cell(name: str) -> None:
    REGISTER[name]()

    check_cell(name)


@pytest.mark.parametrize("name", REGISTER)
def test_custom_cell_trains_generates_saves_and_loads(name: str, reviews: list[str], tmp_path: Path) -> None:
    REGISTER[name]()
    model = revgen.create(f"{name}-char", hidden_size=24, num_layers=3)

    history = model.fit(reviews[:30], valid=reviews[30:35], epochs=3, progress=False)
    loaded = revgen.load(model.save(tmp_path / "model"))

    assert history[-1].train_loss < history[0].train_loss
    assert model.weights.keys() > {"embedding", "bias"}
    assert len({key.split(".")[1] for key in model.weights if key.startswith("layers.")}) == 3
    assert loaded.name == f"{name}-char"
    assert loaded.generate("the ", n=3, seed=2, max_tokens=40) == model.generate("the ", n=3, seed=2, max_tokens=40)
    assert loaded.score(reviews[35]).total == pytest.approx(model.score(reviews[35]).total, abs=1e-3)


def test_checking_a_class_leaves_the_registry_unchanged() -> None:
    kind = register_relu_rnn()
    cells.unregister("relu-rnn")
    before = cells.names()

    check_cell(kind)

    assert cells.names() == before


def test_module_takes_its_own_options() -> None:
    register_module()
    options: Any = {"bias": False}
    unknown: Any = {"biass": False}

    model = revgen.create("module-gru-char", **options, tokenizer=tiny_tokenizer(), num_layers=1)

    assert not [name for name in model.weight_shapes() if "bias" in name and name != "bias"]
    with pytest.raises(revgen.OptionError, match=r"ModuleGRU.*unexpected keyword argument 'biass'"):
        revgen.create("module-gru-char", **unknown)


@pytest.mark.parametrize("module", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
def test_modules_of_pytorch_can_be_registered_directly(module: type[torch.nn.Module], reviews: list[str]) -> None:
    check_cell(module)
    name = f"bare-{module.__name__.lower()}"
    revgen.register_cell(name)(module)
    try:
        model = revgen.create(f"{name}-char", hidden_size=8, num_layers=2, cell_options={"num_layers": 2})
        model.fit(reviews[:10], epochs=1, progress=False)
        alone = model.generate("the ", n=1, max_tokens=20, seed=1, temperature=0)
        assert model.generate(["a song", "the "], n=1, max_tokens=20, seed=1, temperature=0)[1] == alone
    finally:
        cells.unregister(name)


# The network around the cells

SWITCHES = list(product([True, False], [True, False], [True, False], [None, 6, 20]))


@pytest.mark.parametrize(("residual", "layer_norm", "tie_embeddings", "embedding_size"), SWITCHES)
def test_every_combination_of_network_options_agrees_on_numpy_and_torch(
    residual: bool, layer_norm: bool, tie_embeddings: bool, embedding_size: int | None, reviews: list[str]
) -> None:
    model = revgen.create(
        "gru-char",
        hidden_size=12,
        residual=residual,
        layer_norm=layer_norm,
        tie_embeddings=tie_embeddings,
        embedding_size=embedding_size,
    )

    model.fit(reviews[:4], epochs=2, progress=False)

    assert_backends_agree(model)
    assert model.generate("the ", seed=1, max_tokens=10).startswith("the ")
    assert ("head" in model.weights) is not tie_embeddings
    assert any(name.startswith("norms.") for name in model.weights) is layer_norm
    assert model.weights["embedding"].shape[1] == (embedding_size or 12)


def assert_backends_agree(model: Any) -> None:
    """Compare the model on NumPy with its PyTorch network, for a batch and then for one more token."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, len(model.tokenizer), (9, 4))

    logits, state = model.forward(tokens, model.initial_state(4))
    more, _ = model.forward(tokens[:1], state)
    expected, reached = network_forward(model.network)(tokens, None)
    expected_more, _ = network_forward(model.network)(tokens[:1], reached)

    assert isinstance(model.initial_state(4)[0], np.ndarray | tuple) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(more, expected_more, atol=1e-5, rtol=0)


def tiny_tokenizer() -> revgen.Tokenizer:
    """Return a tokenizer of a few characters."""
    from revgen.tokenizers.char import CharTokenizer

    return CharTokenizer.train(["aabbcc"], min_count=1)


# Options of cells


def test_options_returns_names_and_defaults() -> None:
    assert cells.get("rnn").options() == {"nonlinearity": "tanh"}
    assert cells.get("lstm").options() == {}


def test_error_for_an_unknown_option_lists_the_options() -> None:
    with pytest.raises(revgen.OptionError, match="RNN has no option 'slope'; its options: nonlinearity"):
        make_cell("rnn", 2, 3, {"slope": 1.0})


def test_option_of_another_type_raises() -> None:
    with pytest.raises(revgen.OptionError, match="nonlinearity of RNN must be of type str, not 3"):
        make_cell("rnn", 2, 3, {"nonlinearity": 3})


def test_module_with_persistent_buffers_raises() -> None:
    class Buffered(torch.nn.Module):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(input_size, hidden_size)
            self.register_buffer("mean", torch.zeros(hidden_size))

        def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            return self.linear(x), None

    revgen.register_cell("buffered")(Buffered)

    with pytest.raises(revgen.RegistrationError, match=r"Buffered has buffers \['mean'\].*persistent=False"):
        revgen.create("buffered-char")
