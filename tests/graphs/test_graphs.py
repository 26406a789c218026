"""Tests of the graphs of cells and models, and of their drawing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st

import revgen
from revgen.graphs.builder import build_graphs, cell_graph
from revgen.graphs.drawing import draw, spread
from revgen.graphs.graph import Graph
from revgen.language_model import LanguageModel
from revgen.networks.stack import make_cell
from revgen.registry import cells


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(revgen.datasets.load("reviews"))[:30]


def drawn_text(graph: Graph) -> str:
    """Return the labels in the drawing of a graph."""
    root = ElementTree.fromstring(draw(graph))
    return " ".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("name", cells.names())
def test_the_drawing_of_a_cell_names_its_parameters(name: str) -> None:
    cell = make_cell(name, 6, 8, {})
    text = drawn_text(cell_graph(cell).simplify())
    for parameter in cell.param_shapes():
        assert parameter in text
    assert "x" in text.split()


def test_the_graph_of_a_cell_has_one_node_for_each_operation_of_its_equation() -> None:
    graph = cell_graph(make_cell("elman", 5, 8, {}))
    x, h = (graph.nodes[i] for i in (0, 1))
    assert (x.label, h.label) == ("x", "h")
    assert [(node.label, node.sources) for node in graph.nodes[2:]] == [
        ("@ W", [0]),
        ("+ b", [2]),
        ("@ U", [1]),
        ("+", [3, 4]),
        ("tanh", [5]),
        ("h′", [6]),
    ]
    assert graph.nodes[2].note == "5 × 8"


@pytest.fixture
def blend_cell() -> Iterator[str]:
    @revgen.register_cell("blend")
    class Blend(revgen.Cell):
        """h' = (1 - a) h + a relu(x W / 2), with a state that is a dictionary."""

        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, self.hidden_size), "a": (self.hidden_size,), "unused": (3,)}

        def initial_state(self, batch: int, zeros: Any) -> Any:
            return {"memory": zeros((batch, self.hidden_size))}

        def step(self, p: Any, z: Any, state: Any) -> Any:
            h = (1 - p.a) * state["memory"] + p.a * revgen.ops.relu(z @ p.W / 2)
            return h * 2, {"memory": h}

    yield "blend"
    cells.unregister("blend")


def test_a_cell_that_a_user_registers_can_be_traced(blend_cell: str) -> None:
    labels = [node.label for node in cell_graph(make_cell(blend_cell, 4, 4, {})).simplify().nodes]
    assert {"x", "memory", "memory′", "y", "@ W", "÷ 2", "relu", "(1 − a) ×", "a ×", "× 2"} == {*labels} - {"+"}


def untrained_graphs(name: str, texts: list[str], **options: Any) -> dict[str, Graph]:
    """Return the graphs of a new model with initial weights."""
    model: Any = revgen.create(name, **options)
    model.prepare(model.tokenizer_for(revgen.read(iter(texts))), 0)
    return build_graphs(model)


def test_a_recurrent_network_has_a_graph_with_its_cells_as_nodes(texts: list[str]) -> None:
    network = untrained_graphs("gru-char", texts, hidden_size=8, num_layers=3)["network"]
    labels = [node.label for node in network.nodes]
    assert [label for label in labels if label.startswith("gru")] == ["gru 1", "gru 2", "gru 3"]
    assert labels[:2] == ["token", "embedding[token]"] and labels[-1] == "logits"


def test_a_network_with_ngram_heads_has_a_graph(texts: list[str]) -> None:
    network = untrained_graphs("gru-char", texts, hidden_size=8, num_layers=1, ngram_heads=(1, 3))["network"]
    labels = [node.label for node in network.nodes]
    assert sum(label.startswith("heads.") for label in labels) == 2 and "gru 1" in labels


def test_a_composite_operator_is_one_node(texts: list[str]) -> None:
    graph = untrained_graphs("transformer-char", texts, hidden_size=16, num_layers=1, num_heads=2)["network"]
    labels = [node.label for node in graph.nodes]
    assert [labels.count(name) for name in ("layer norm(norms.0)", "attention", "gelu")] == [1, 1, 1]
    assert graph.nodes[labels.index("layer norm(norms.0)")].note == "16"


def test_a_network_with_a_pytorch_module_as_cell_has_a_graph(texts: list[str]) -> None:
    import torch

    revgen.register_cell("module-cell")(torch.nn.GRU)
    try:
        drawn = untrained_graphs("module-cell-char", texts, hidden_size=8, num_layers=2)
    finally:
        cells.unregister("module-cell")
    assert [node.label for node in drawn["network"].nodes if node.kind == "cell"] == ["module-cell 1", "module-cell 2"]


def test_repeated_layers_of_a_long_network_are_drawn_once(texts: list[str]) -> None:
    graph = untrained_graphs("gru-char", texts, hidden_size=8, num_layers=9)["network"]
    assert graph.repeated is not None and graph.repeated[2] == 9
    assert len(graph.nodes) < 12 and "× 9" in drawn_text(graph)


def test_a_model_that_cannot_be_traced_has_a_graph_of_its_weights(small_model: LanguageModel, texts: list[str]) -> None:
    model = revgen.create("kneser-ney-char", order=3)
    model.fit(texts)
    text = drawn_text(build_graphs(model)["weights"])
    assert "order 3" in text and "backoff" in text
    assert set(build_graphs(small_model)) == {"network", "one time step of a cell"}


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(1, 30)), min_size=1, max_size=8))
def test_boxes_never_overlap_and_their_mean_position_is_unchanged(boxes: list[tuple[float, float]]) -> None:
    wanted, widths = ([*values] for values in zip(*boxes, strict=True))
    positions = spread(wanted, widths)
    for i in range(1, len(positions)):
        assert positions[i] - positions[i - 1] >= (widths[i] + widths[i - 1]) / 2
    assert sum(positions) == pytest.approx(sum(wanted), abs=1e-6)
