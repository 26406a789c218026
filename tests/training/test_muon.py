"""Muon: updates of matrices are orthogonal, have the size of AdamW's, and train every network with matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import revgen
from revgen import Cell, ops
from revgen.architectures.neural import NeuralModel
from revgen.networks.stack import RecurrentConfig, Stack, make_cell
from revgen.ops import Array
from revgen.registry import cells
from revgen.training.muon import UPDATE_SIZE, Muon, orthogonalize

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "sequence_length": 32, "progress": False}


def step(matrices: list[torch.Tensor], gradients: list[torch.Tensor], decay: float = 0.0) -> list[torch.Tensor]:
    """Return the matrices after one step with a learning rate of 0.1."""
    params = [torch.nn.Parameter(matrix.clone()) for matrix in matrices]
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = gradient.clone()
    Muon(params, lr=0.1, weight_decay=decay).step()
    return [param.detach() for param in params]


def test_singular_values_become_one_and_singular_vectors_stay() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 16, 40)
    result, exact = orthogonalize(x), torch.linalg.svd(x, full_matrices=False)

    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6 and values.max() < 1.3
    diagonal = exact.U.mT @ result @ exact.Vh.mT
    torch.testing.assert_close(diagonal, torch.diag_embed(diagonal.diagonal(dim1=1, dim2=2)), atol=1e-4, rtol=0)


def test_update_of_each_shape_has_the_size_of_an_update_of_adamw() -> None:
    torch.manual_seed(0)
    shapes = (32, 32), (32, 64), (64, 32), (32, 32)
    gradients = [torch.randn(shape) for shape in shapes]
    updates = step([torch.zeros(shape) for shape in shapes], gradients)

    for shape, gradient, update in zip(shapes, gradients, updates, strict=True):
        assert update.square().mean().sqrt() == pytest.approx(0.1 * UPDATE_SIZE, rel=0.25)
        torch.testing.assert_close(step([torch.zeros(shape)], [gradient])[0], update, atol=1e-5, rtol=0)
        assert (update * gradient).sum() < 0


def test_joined_matrices_are_updated_like_separate_ones() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(16, 48)
    joined = torch.nn.Parameter(torch.zeros(16, 48))
    joined.grad = gradient
    Muon([{"params": [joined], "blocks": 3}], lr=0.1, weight_decay=0.0).step()

    separate = step([torch.zeros(16, 16)] * 3, list(gradient.chunk(3, 1)))
    torch.testing.assert_close(joined.detach(), torch.cat(separate, 1), atol=1e-5, rtol=0)


def test_weights_decay_in_proportion_to_the_learning_rate() -> None:
    weights, gradient = torch.ones(8, 8), torch.eye(8)
    (plain,), (decayed,) = step([weights], [gradient]), step([weights], [gradient], decay=0.5)
    torch.testing.assert_close(plain - decayed, 0.1 * 0.5 * weights)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_matrices_of_a_cell_decay_whatever_their_names(optimizer: str, reviews: list[str]) -> None:
    @revgen.register_cell("own-names")
    class OwnNames(Cell):
        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"embedding": (self.input_size, self.hidden_size), "head": (self.hidden_size, self.hidden_size)}

        def step(self, p: Any, x: Array, h: Array) -> tuple[Array, Array]:
            h = ops.tanh(x @ p.embedding + h @ p.head)
            return h, h

    try:
        model = revgen.create("own-names-char", hidden_size=8, num_layers=1)
        model.fit(reviews[:20], optimizer=optimizer, weight_decay=50.0, learning_rate=0.01, **QUICK)
    finally:
        cells.unregister("own-names")

    size = {name: float(np.abs(model.weights[name]).max()) for name in ("embedding", "layers.0.embedding")}
    assert size["layers.0.embedding"] < 0.1 < size["embedding"]


@pytest.mark.parametrize("name", ["gru-char", "mlp-char", "transformer-char"])
def test_muon_trains_networks_and_is_named_in_the_settings(name: str, reviews: list[str]) -> None:
    options: dict[str, Any] = {"num_heads": 2} if name == "transformer-char" else {}
    model: Any = revgen.create(name, hidden_size=16, num_layers=1, **options)
    history = model.fit(reviews[:20], optimizer="muon", **QUICK)
    assert history[-1].train_loss < history[0].train_loss
    assert history.settings["optimizer"] == "muon"


def test_recurrent_networks_and_the_transformer_train_with_muon_by_default() -> None:
    names = ("lstm", "rglru", "awd-lstm", "mlp", "transformer")
    defaults = {name: revgen.registry.architecture_class(name) for name in names}
    assert {name: cls.optimizer for name, cls in defaults.items() if issubclass(cls, NeuralModel)} == {
        "lstm": "muon",
        "rglru": "muon",
        "awd-lstm": "muon",
        "mlp": "adamw",
        "transformer": "muon",
    }


@pytest.mark.parametrize("name", ["lstm", "gru", "rglru", "minlstm", "elman"])
def test_the_matrix_of_each_gate_is_orthogonalized_on_its_own(name: str) -> None:
    stack = Stack(name, RecurrentConfig(hidden_size=8, embedding_size=6), vocab=5)
    for weight, shape in stack.param_shapes().items():
        if weight.startswith("layers.") and len(shape) == 2:
            assert shape[1] // stack.num_blocks(weight) == 8, weight


@pytest.mark.parametrize("shape", [(8, 20), (8, 3)])
def test_matrix_that_does_not_consist_of_gates_is_orthogonalized_whole(shape: tuple[int, int]) -> None:
    assert make_cell("lstm", 8, 8, {}).num_blocks(shape) == 1
