"""Every registered cell, and cells that users write."""

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
from revgen.ops import concatenate, relu, tanh
from revgen.registry import cells
from revgen.testing import check_cell


@pytest.fixture(autouse=True)
def registered_names() -> Iterator[None]:
    """Take back what a test registers."""
    before = cells.names()
    yield
    for name in set(cells.names()) - set(before):
        cells.unregister(name)


def register_relu_rnn() -> type[revgen.Cell]:
    """The example of the documentation, as it is printed there."""

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
    """A cell for those who prefer PyTorch: a module that reads a whole sequence."""

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
def test_every_registered_cell_conforms(name: str) -> None:
    check_cell(name)


def test_the_rnn_conforms_with_relu() -> None:
    check_cell("rnn", nonlinearity="relu")


@pytest.mark.parametrize("name", [name for name in cells.names() if cells.get(name).fused_kernel])
def test_a_cell_with_a_kernel_has_one_equation_on_three_ways_through_a_whole_network(
    name: str, reviews: list[str]
) -> None:
    model = revgen.create(f"{name}-char", hidden_size=16)
    model.fit(reviews[:10], epochs=1, progress=False)

    assert_backends_agree(model)


# Cells that users write


@pytest.mark.parametrize("name", REGISTER)
def test_a_users_cell_conforms(name: str) -> None:
    REGISTER[name]()

    check_cell(name)


@pytest.mark.parametrize("name", REGISTER)
def test_a_users_cell_trains_stacks_generates_saves_and_loads(name: str, reviews: list[str], tmp_path: Path) -> None:
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


def test_a_users_cell_is_checked_as_a_class_and_not_left_in_the_registry() -> None:
    kind = register_relu_rnn()
    cells.unregister("relu-rnn")
    before = cells.names()

    check_cell(kind)

    assert cells.names() == before


def test_a_module_takes_options_of_its_own() -> None:
    register_module()
    options: Any = {"bias": False}
    unknown: Any = {"biass": False}

    model = revgen.create("module-gru-char", **options, tokenizer=tiny_tokenizer(), num_layers=1)

    assert not [name for name in model.weight_shapes() if "bias" in name and name != "bias"]
    with pytest.raises(revgen.OptionError, match=r"ModuleGRU.*unexpected keyword argument 'biass'"):
        revgen.create("module-gru-char", **unknown)


class Plain(revgen.Cell):
    """h' = tanh(x W + h U + b), to be spoilt by the tests."""

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "W": (self.input_size, self.hidden_size),
            "U": (self.hidden_size, self.hidden_size),
            "b": (self.hidden_size,),
        }

    def project(self, p: Any, x: Any) -> Any:
        return x @ p.W + p.b

    def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
        h = tanh(z + h @ p.U)
        return h, h


class PairState(Plain):
    """A state of two arrays in a container, the second of another size than the hidden layer."""

    container: str = "tuple"

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(super().param_shapes()) | {"V": (2, self.hidden_size)}

    def initial_state(self, batch: int, zeros: Any) -> Any:
        return self.pack(zeros((batch, self.hidden_size)), zeros((batch, 2)))

    def step(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
        h, memory = state.values() if isinstance(state, dict) else state
        h = tanh(z + h @ p.U + memory @ p.V)
        return h, self.pack(h, h[..., :2] + memory * 0.5)

    def pack(self, h: Any, memory: Any) -> Any:
        return {"tuple": (h, memory), "list": [h, memory], "dict": {"h": h, "memory": memory}}[self.container]


@pytest.mark.parametrize("container", ["tuple", "list", "dict"])
def test_a_state_may_be_a_container_of_arrays(container: str) -> None:
    check_cell(PairState, container=container)


def test_a_state_may_be_containers_in_containers() -> None:
    class Nested(Plain):
        def initial_state(self, batch: int, zeros: Any) -> Any:
            return {"now": (zeros((batch, self.hidden_size)),), "before": [zeros((batch, self.hidden_size)), None]}

        def step(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
            h = tanh(z + (state["now"][0] + state["before"][0]) @ p.U)
            return h, {"now": (h,), "before": [state["now"][0], None]}

    check_cell(Nested)


def test_an_output_may_be_wider_than_the_hidden_layer() -> None:
    class Wide(Plain):
        @property
        def output_size(self) -> int:
            return 2 * self.hidden_size

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            new = tanh(z + h @ p.U)
            return concatenate([new, h]), new

    check_cell(Wide)


# What the conformance kit finds


def test_the_kit_finds_an_output_of_the_wrong_shape() -> None:
    class Narrow(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U)
            return h[..., :-1], h

    with pytest.raises(AssertionError, match=r"the outputs have the shape \(7, 3, 7\), not .*\(7, 3, 8\)"):
        check_cell(Narrow)


def test_the_kit_finds_a_state_of_the_wrong_shape() -> None:
    class Turned(Plain):
        def initial_state(self, batch: int, zeros: Any) -> Any:
            return zeros((self.hidden_size, batch))

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h.T @ p.U)
            return h, h.T

    with pytest.raises(AssertionError, match=r"state has the shape \(8, 3\), not \(batch, …\)"):
        check_cell(Turned)


def test_the_kit_finds_parameters_that_are_not_as_they_are_declared() -> None:
    class Misshapen(Plain):
        def init_param(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
            return np.zeros((*shape, 1))

    with pytest.raises(AssertionError, match=r"init_param\('W'\) returned the shape \(5, 8, 1\), not \(5, 8\)"):
        check_cell(Misshapen)


def test_the_kit_finds_state_that_hides_on_the_cell() -> None:
    class Secretive(Plain):
        last: Any = 0.0

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U + self.last * 0.5)
            self.last = h.mean()
            return h, h

    with pytest.raises(AssertionError, match="reading a sequence twice gives different outputs"):
        check_cell(Secretive)


def test_the_kit_finds_a_result_that_depends_on_the_length_of_the_sequence() -> None:
    class Counting(Plain):
        def project(self, p: Any, x: Any) -> Any:
            return x @ p.W + p.b * len(x)

    with pytest.raises(AssertionError, match="reading in two parts and at once gives different outputs"):
        check_cell(Counting)


def test_the_kit_finds_a_whole_sequence_that_is_not_the_same_as_its_steps() -> None:
    class Hasty(Plain):
        def sequence(self, p: Any, z: Any, state: Any) -> tuple[Any, Any]:
            return super().sequence(p, z, state) if len(z) == 1 else super().sequence(p, z, state * 0)

    with pytest.raises(AssertionError, match="reading in two parts and at once gives different outputs"):
        check_cell(Hasty)


def test_the_kit_finds_a_projection_that_looks_into_the_future() -> None:
    class Prophetic(Plain):
        def project(self, p: Any, x: Any) -> Any:
            return (x + x.sum(0)) @ p.W + p.b

    with pytest.raises(AssertionError, match="the outputs of a step depend on later steps"):
        check_cell(Prophetic)


def test_the_kit_finds_rows_of_a_batch_that_see_each_other() -> None:
    class Gossiping(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h.sum(0) @ p.U)
            return h + z * 0, h + z * 0

    with pytest.raises(AssertionError, match="a row alone and in a batch gives different outputs"):
        check_cell(Gossiping)


def test_the_kit_finds_a_result_of_double_precision_on_numpy() -> None:
    class Double(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U)
            return (h.astype(np.float64) if isinstance(h, np.ndarray) else h), h

    with pytest.raises(AssertionError, match="on NumPy the output is float64, not float32"):
        check_cell(Double)


def test_the_kit_finds_an_equation_that_differs_between_the_backends() -> None:
    class TwoFaced(Plain):
        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = tanh(z + h @ p.U) if isinstance(h, np.ndarray) else relu(z + h @ p.U)
            return h, h

    with pytest.raises(AssertionError, match="NumPy and PyTorch give different outputs"):
        check_cell(TwoFaced)


def test_the_kit_finds_a_parameter_that_nothing_uses() -> None:
    class Idle(Plain):
        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return dict(super().param_shapes()) | {"V": (3, 3)}

    with pytest.raises(AssertionError, match="the weight V gets no gradient"):
        check_cell(Idle)


def test_the_kit_finds_a_kernel_that_computes_something_else() -> None:
    class Mistaken(Plain):
        fused_kernel = "rnn_relu"

    with pytest.raises(AssertionError, match="the fused kernel rnn_relu and the cell give different outputs"):
        check_cell(Mistaken)


@pytest.mark.parametrize("kernel_name", ["lstm", "nothing"])
def test_the_kit_finds_a_kernel_that_does_not_fit(kernel_name: str) -> None:
    class Unfit(Plain):
        fused_kernel = kernel_name

    with pytest.raises(AssertionError, match=f"the fused kernel {kernel_name} rejects the weights"):
        check_cell(Unfit)


@pytest.mark.parametrize("module", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
def test_the_modules_of_pytorch_are_cells_as_they_are(module: type[torch.nn.Module], reviews: list[str]) -> None:
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


def test_the_kit_finds_a_module_that_looks_into_the_future() -> None:
    class Both(torch.nn.Module):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(input_size, hidden_size // 2, bidirectional=True)

        def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            return self.gru(x)[0], None

    with pytest.raises(AssertionError, match="the outputs of a step depend on later steps"):
        check_cell(Both)


# The network around the cells

SWITCHES = list(product([True, False], [True, False], [True, False], [None, 6, 20]))


@pytest.mark.parametrize(("residual", "layer_norm", "tie_embeddings", "embedding_size"), SWITCHES)
def test_every_combination_of_the_networks_options_works_alike_on_both_backends(
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
    """The model's equation on NumPy and its PyTorch network, over a batch and then one token more."""
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
    """A tokenizer of a few characters."""
    from revgen.tokenizers.char import CharTokenizer

    return CharTokenizer.train(["aabbcc"], min_count=1)


# A cell by itself


def test_a_cell_knows_its_options_and_their_defaults() -> None:
    assert cells.get("rnn").options() == {"nonlinearity": "tanh"}
    assert cells.get("lstm").options() == {}


def test_an_option_that_a_cell_has_not_is_an_error_that_lists_those_it_has() -> None:
    with pytest.raises(revgen.OptionError, match="RNN has no option 'slope'; its options: nonlinearity"):
        make_cell("rnn", 2, 3, {"slope": 1.0})


def test_an_option_of_another_type_is_an_error() -> None:
    with pytest.raises(revgen.OptionError, match="nonlinearity of RNN must be of the type str, not 3"):
        make_cell("rnn", 2, 3, {"nonlinearity": 3})


def test_a_module_with_buffers_that_would_be_lost_is_refused() -> None:
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
