"""A time step is computed in segments: products with weights, then a loop over the rows of the batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import unusual_cells

from revgen import Cell
from revgen.compiler import Program, trace
from revgen.compiler.schedule import Schedule
from revgen.errors import NotTraceableError
from revgen.networks.codegen import fixed_values
from revgen.networks.fused.layer_code import input_indices
from revgen.registry import cells


def schedule_of(cell: Cell, stored: list[int] | None = None) -> tuple[Program, Schedule]:
    """Return the program of a step, without its projection, and its schedule."""
    params = SimpleNamespace(**{name: np.ones(shape, np.float32) for name, shape in cell.param_shapes().items()})
    state = cell.initial_state(1, lambda shape: np.ones(shape, np.float32))

    def step(p: Any, x: Any, state: Any) -> Any:
        return cell.step(p, cell.project(p, x[None])[0], state)

    program = trace(step, p=params, x=np.ones((1, cell.input_size), np.float32), state=state)
    states = [i for name, i in input_indices(program).items() if name.startswith("state")]
    y, *new = program.output_indices
    carried = dict(zip(states, new, strict=True))
    return program, Schedule(program, list(fixed_values(program)), carried, [y, *(stored or [])])


@pytest.mark.parametrize(
    ("cell", "products"),
    [
        (cells.get("elman")(7, 6), [2]),
        (cells.get("lstm")(7, 6), [2]),
        (unusual_cells.TwoProducts(7, 6), [2, 1]),
        (unusual_cells.ProductOfProduct(7, 6), [2, 1]),
        (unusual_cells.ScaledOutput(7, 6), [1, 1]),
    ],
)
def test_products_of_each_segment(cell: Cell, products: list[int]) -> None:
    _, schedule = schedule_of(cell)

    counts = [len(segment.products) for segment in schedule.segments]

    assert [count for count in counts if count] == products


@pytest.mark.parametrize("cell_class", unusual_cells.COMPILED)
def test_values_are_computed_after_the_values_that_they_use(cell_class: type[Cell]) -> None:
    cell = cell_class(7, 6)
    try:
        program, schedule = schedule_of(cell)
    except NotTraceableError as error:
        assert "copy of an input" in str(error)
        return

    for i, position in schedule.positions.items():
        for j in schedule.inputs(i):
            if j in schedule.positions:
                is_product = i in schedule.products
                assert schedule.positions[j] < position if is_product else schedule.positions[j] <= position
    computed = [i for segment in schedule.segments for i in (*segment.products, *segment.members)]
    assert sorted(computed) == sorted(schedule.positions)
    assert len(computed) == len(set(computed))
    assert all(program.operations[i].name != "input" for i in computed)


def test_product_with_a_matrix_that_depends_on_the_state_is_not_a_product_with_weights() -> None:
    program, schedule = schedule_of(unusual_cells.FastWeights(7, 6))

    matrices = [program.operations[program.operations[i].inputs[1]] for i in schedule.products]

    assert sorted(o.attributes["name"] for o in matrices) == ["p.U", "p.W"]


def test_result_that_is_a_copy_of_an_input_has_no_schedule() -> None:
    with pytest.raises(NotTraceableError, match="a copy of an input"):
        schedule_of(unusual_cells.OutputOfOldState(7, 6))
