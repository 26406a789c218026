"""NumPy code that is generated from programs computes the same bits as the equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from programs import STEPS, random_program, swapping_program

import revgen
from revgen import ops
from revgen.architectures import functional_model
from revgen.architectures.neural import NeuralModel
from revgen.errors import NotTraceableError
from revgen.networks.numpy_code import NumpyProgram
from revgen.registry import architecture_class, architecture_names, cells
from revgen.tokenizers import CharTokenizer


def flatten(state: Any) -> list[Any]:
    """Return the arrays of a state."""
    arrays: list[Any] = []
    ops.tree_map(arrays.append, state)
    return arrays


def model_of(name: str, **options: Any) -> Any:
    """Return a small model with noise on its initial weights, so that every weight matters."""
    tokenizer = CharTokenizer.train(["abcdefgh ijklmn. " * 5])
    model: Any = revgen.create(f"{name}-char", tokenizer=tokenizer, **{"hidden_size": 30, "num_layers": 2, **options})
    model.prepare(tokenizer, seed=1)
    rng = np.random.default_rng(0)
    model.weights = {n: (a + rng.normal(0, 0.2, a.shape)).astype(np.float32) for n, a in model.weights.items()}
    return model


NETWORKS = [
    name for name in architecture_names() if name != "transformer" and issubclass(architecture_class(name), NeuralModel)
]
OPTIONS: dict[str, Any] = {
    "lstm": {"embedding_size": 20},
    "gru": {"layer_norm": False, "residual": False},
    "elman": {"ngram_heads": (1, 3)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_reader_computes_the_same_bits_as_forward(name: str) -> None:
    model = model_of(name, **OPTIONS.get(name, {}))
    tokens = np.random.default_rng(1).integers(0, len(model.tokenizer), 40).tolist()
    state = model.initial_state(1)
    for token in tokens[:10]:
        _, state = model.forward(np.array([[token]]), state)

    reader = model.numpy_program.reader(state)

    for token in [*tokens[10:], model.tokenizer.bos_id, *tokens]:
        expected, state = model.forward(np.array([[token]]), state)
        np.testing.assert_array_equal(reader.read(token), expected[0, 0])
    for array, expected in zip(flatten(reader.state), flatten(state), strict=True):
        np.testing.assert_array_equal(array, expected)


@given(steps=STEPS, seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_random_programs_give_the_same_bits_as_the_interpreter(steps: list[tuple[int, int, int]], seed: int) -> None:
    random = random_program(steps, seed)
    before = [array.copy() for array in random.state]
    with np.errstate(all="ignore"):
        expected, expected_state = random.run()

        reader = NumpyProgram(random.program, random.weights).reader(random.state)
        assert reader is not None
        logits = reader.read(random.token)

    np.testing.assert_array_equal(logits, expected.reshape(-1))
    for array, expected_array in zip(reader.state, expected_state, strict=True):
        np.testing.assert_array_equal(array, expected_array)
    for array, old in zip(random.state, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_arrays_of_the_state_may_swap() -> None:
    program, head, state = swapping_program()
    reader = NumpyProgram(program, {"p.head": head}).reader(state)
    assert reader is not None

    assert [reader.read(0)[0] for _ in range(3)] == [1, 0, 1]
    assert [array[0, 0] for array in reader.state] == [0, 1]


def test_long_text_is_the_same_after_the_program_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("lstm")
    options: dict[str, Any] = {"max_tokens": 300, "seed": 1, "banned_tokens": [model.tokenizer.eos_id]}
    before = model.generate("abc", **options)
    assert "numpy_program" not in model._derived

    monkeypatch.setattr(functional_model, "MIN_TOKENS", 60)

    assert model.generate("abc", **options) == before
    assert "numpy_program" in model._derived


@pytest.mark.parametrize("name", ["transformer", "own-functions"])
def test_network_without_such_a_program_still_generates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional_model, "MIN_TOKENS", 0)

    @revgen.register_cell("own-functions")
    class OwnFunctions(revgen.Cell):
        """h' = arctan(x W + h), with a function of NumPy that is not traceable."""

        def param_shapes(self) -> dict[str, tuple[int, ...]]:
            return {"W": (self.input_size, self.hidden_size)}

        def step(self, p: Any, z: Any, h: Any) -> tuple[Any, Any]:
            h = np.arctan(z @ p.W + h)
            return h, h

    try:
        model = model_of(name, **({"hidden_size": 32} if name == "transformer" else {}))
        assert len(model.generate("", max_tokens=60, seed=1, banned_tokens=[1])) == 60
        if name != "transformer":
            with pytest.raises(NotTraceableError, match="fails on traced arrays: TypeError"):
                model.program()
            pytest.importorskip("numba")
            with pytest.raises(revgen.OptionError, match="own-functions-char cannot be compiled: the equation fails"):
                model.compile()
    finally:
        cells.unregister("own-functions")


def test_softplus_of_large_numbers_is_the_same_in_numpy_and_pytorch() -> None:
    x = np.linspace(-50, 50, 1001)

    np.testing.assert_allclose(ops.softplus(torch.from_numpy(x)).numpy(), ops.softplus(x), rtol=1e-14, atol=0)
