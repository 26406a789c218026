"""Rewritten programs compute the same, with fewer loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from fused_layers import leaves
from hypothesis import given, settings, strategies as st
from programs import STEPS, random_program
from random_cells import SIZE, RandomCell, random_cells

from revgen import ops
from revgen.compiler import Program, trace
from revgen.compiler.simplify import Copier, slice_first
from revgen.ops import tree_map

RNG = np.random.default_rng(0)
X, Z, U = (RNG.normal(size=shape).astype(np.float32) for shape in ((1, 8), (1, 32), (8, 32)))


def run(program: Program, inputs: dict[str, Any]) -> list[Any]:
    with np.errstate(all="ignore"):
        return leaves(program(**inputs))


@given(steps=STEPS, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_slices_come_first_without_changing_the_results(steps: list[tuple[int, int, int]], seed: int) -> None:
    random = random_program(steps, seed)
    states = {f"state.{i}": array for i, array in enumerate(random.state)}
    inputs = {**random.weights, **states, "tokens": np.array([[random.token]])}

    simplified = slice_first(random.program)

    for result, expected in zip(run(simplified, inputs), run(random.program, inputs), strict=True):
        np.testing.assert_array_equal(result, expected)


@given(cell=random_cells())
@settings(max_examples=60, deadline=None)
def test_slices_come_first_in_random_cells(cell: RandomCell) -> None:
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in cell.param_shapes().items()}
    z, state = rng.normal(size=(1, SIZE)), (rng.normal(size=(1, SIZE)), rng.normal(size=(1, SIZE)), rng.normal(size=1))
    program = trace(cell.step, p=SimpleNamespace(**params), z=z, state=state)
    inputs = {f"p.{name}": array for name, array in params.items()} | {"z": z}
    inputs |= {f"state.{i}": array for i, array in enumerate(state)}

    for result, expected in zip(run(slice_first(program), inputs), run(program, inputs), strict=True):
        np.testing.assert_array_equal(result, expected)


def gates(x: Any, z: Any, u: Any) -> Any:
    a, b, c, d = ops.split(z + x @ u, 4)
    return ops.sigmoid(a) * ops.tanh(b) + ops.sigmoid(c) * ops.tanh(d)


def test_gates_take_one_loop_over_a_quarter_of_the_sum() -> None:
    program = trace(gates, x=X, z=Z, u=U)

    simplified = slice_first(program)

    sizes = {o.size for o in simplified.operations if o.name in ("add", "multiply", "sigmoid", "tanh")}
    assert sizes == {8}
    np.testing.assert_array_equal(simplified(x=X, z=Z, u=U), program(x=X, z=Z, u=U))


def test_sum_that_is_also_used_whole_is_computed_once() -> None:
    program = trace(lambda x, z, u: (gates(x, z, u), z + x @ u), x=X, z=Z, u=U)

    additions = [o.size for o in slice_first(program).operations if o.name == "add"]

    assert additions.count(32) == 1


def test_slice_of_a_slice_is_one_slice() -> None:
    program = slice_first(trace(lambda z: z[:, 4:28][:, 2:20:3] * 2, z=Z))

    assert [o.attributes["index"] for o in program.operations if o.name == "slice"] == [((0, 1, 1), (6, 24, 3))]
    np.testing.assert_array_equal(program(z=Z), Z[:, 4:28][:, 2:20:3] * 2)


def test_slice_of_concatenated_arrays_reads_one_of_them() -> None:
    program = slice_first(trace(lambda x, z: ops.concatenate([x, z])[:, 8:20] + 1, x=X, z=Z))

    assert "concatenate" not in [o.name for o in program.operations]
    np.testing.assert_array_equal(program(x=X, z=Z), Z[:, :12] + 1)


def test_axes_of_size_1_are_added_before_elementwise_operations() -> None:
    program = trace(lambda x, z: ops.tanh(x * 2 + 1)[:, :, None] * z[:, None], x=X, z=Z)

    simplified = slice_first(program)

    names = [o.name for o in simplified.operations]
    assert names.index("reshape") < names.index("tanh")
    np.testing.assert_array_equal(simplified(x=X, z=Z), program(x=X, z=Z))


def test_copies_are_values_of_their_own() -> None:
    program = trace(lambda x, z: (x, z[:, :3], x.reshape(8), x + 1), x=X, z=Z)
    copier = Copier(program)

    outputs = tree_map(copier.copy_view, program.outputs)
    copied = Program(tuple(copier.operations), outputs)

    assert [copied.operations[i].name for i in copied.output_indices] == ["multiply"] * 3 + ["add"]
    for result, expected in zip(copied(x=X, z=Z), program(x=X, z=Z), strict=True):
        np.testing.assert_array_equal(result, expected)
