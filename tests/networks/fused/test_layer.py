"""A compiled layer gives the same results and gradients as PyTorch's operations, for every cell."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import unusual_cells
from fused_layers import Sequence, compare_with_pytorch, load_in_python, random_sequence, reference
from hypothesis import given, settings
from random_cells import RandomCell, random_cells

from revgen import Cell
from revgen.errors import NotTraceableError
from revgen.networks.block import Block
from revgen.networks.fused import layer, parallel
from revgen.networks.fused.layer import FusedLayer
from revgen.networks.fused.layer_code import nest
from revgen.networks.jit import HAS_BFLOAT16
from revgen.registry import cells

TOLERANCES = {"float64": 1e-12, "float32": 2e-5}
BUILT_IN: dict[str, Block] = {name: Block(cells.get(name)(7, 6)) for name in cells.names()} | {
    "rnn-relu": Block(cells.get("rnn")(7, 6, nonlinearity="relu")),
    "elman-1": Block(cells.get("elman")(1, 1)),
    "mingru-3": Block(cells.get("mingru")(7, 5, expansion=3)),
}
"""All registered cells, some with other options, in sizes that do not fill a vector register."""

needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason="the processor does not multiply bfloat16 numbers")


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the generated code in Python, so that nothing has to be compiled."""
    monkeypatch.setattr(layer, "load_source", load_in_python)


def dtype_of(name: str) -> torch.dtype:
    """Return the type of the tensors of a layer whose products are in this type."""
    return torch.float64 if name == "float64" else torch.float32


def compare_directions(layer: Any, block: Block, minimum: float = 0.98, **options: Any) -> None:
    """Check that each gradient has nearly the direction of PyTorch's, as rounding to bfloat16 allows."""
    sequence = random_sequence(block, dtype=torch.float32, **options)
    actual, expected = sequence.run(layer), sequence.run(reference(block))
    for name, array in expected.items():
        if array.any():
            cosine = torch.nn.functional.cosine_similarity(actual[name].flatten(), array.flatten(), 0)
            assert cosine > minimum, name


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_cell_has_the_gradients_of_pytorch(name: str, dtype: str) -> None:
    block = BUILT_IN[name]

    compare_with_pytorch(FusedLayer(block, dtype), block, TOLERANCES[dtype], dtype=dtype_of(dtype))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("name", ["gru", *(pytest.param(n, marks=pytest.mark.slow) for n in BUILT_IN if n != "gru")])
def test_machine_code_of_every_cell_has_the_gradients_of_pytorch(name: str, dtype: str) -> None:
    block = BUILT_IN[name]
    fused = FusedLayer(block, dtype)

    for time, batch in ((6, 5), (1, 1), (3, 20)):
        if dtype == "bfloat16":
            compare_directions(fused, block, time=time, batch=batch)
        else:
            compare_with_pytorch(fused, block, TOLERANCES[dtype], dtype=dtype_of(dtype), time=time, batch=batch)


@needs_bfloat16
@pytest.mark.slow
@pytest.mark.parametrize("name", cells.names())
def test_gradients_in_bfloat16_have_the_direction_of_pytorch(name: str) -> None:
    block = Block(cells.get(name)(64, 96))

    compare_directions(FusedLayer(block, "bfloat16"), block, 0.995, time=12, batch=24, scale=0.1)


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
@pytest.mark.parametrize("cell_class", unusual_cells.COMPILED)
def test_custom_cell_has_the_gradients_of_pytorch(cell_class: type[Cell], dtype: str) -> None:
    block = Block(cell_class(7, 6))
    fused = FusedLayer(block, dtype)

    if dtype == "bfloat16":
        compare_directions(fused, block, 0.9 if cell_class is unusual_cells.Piecewise else 0.98, scale=0.3)
    else:
        compare_with_pytorch(fused, block, TOLERANCES[dtype], dtype=dtype_of(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("cell_class", unusual_cells.COMPILED)
def test_machine_code_of_custom_cell_has_the_gradients_of_pytorch(cell_class: type[Cell]) -> None:
    block = Block(cell_class(7, 6))

    compare_with_pytorch(FusedLayer(block, "float64"), block, TOLERANCES["float64"], dtype=torch.float64, batch=9)


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("cell_class", unusual_cells.NOT_COMPILED)
def test_cell_without_a_compiled_form_says_why(cell_class: type[unusual_cells.Custom]) -> None:
    with pytest.raises(NotTraceableError, match=unusual_cells.NOT_COMPILED[cell_class]):
        FusedLayer(Block(cell_class(7, 6)), "float32")


BLOCKS = [
    Block(cells.get(name)(6, 6), *flags)
    for name in ("gru", "slstm")
    for flags in ((True,), (False, True), (False, False, True), (True, True, True))
]


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("has_dropout", [False, True])
def test_norms_residual_connection_and_dropout_have_the_gradients_of_pytorch(block: Block, has_dropout: bool) -> None:
    for dtype in TOLERANCES:
        options = {"dtype": dtype_of(dtype), "has_dropout": has_dropout}
        compare_with_pytorch(FusedLayer(block, dtype, has_dropout), block, TOLERANCES[dtype], **options)
    compare_directions(FusedLayer(block, "bfloat16", has_dropout), block, has_dropout=has_dropout)


@pytest.mark.usefixtures("in_python")
def test_output_may_be_rounded_to_bfloat16() -> None:
    block = Block(cells.get("gru")(6, 6), True, True, True)
    sequence = random_sequence(block, dtype=torch.float32, has_dropout=True)
    exact, rounded = (FusedLayer(block, "bfloat16", True, rounds_output) for rounds_output in (False, True))
    expected, actual = sequence.run(exact), sequence.run(rounded)

    assert actual["y"].dtype == torch.bfloat16
    assert torch.equal(actual.pop("y"), expected.pop("y").bfloat16())
    for name, array in expected.items():
        torch.testing.assert_close(actual[name], array, rtol=0.02, atol=0.02 * float(array.abs().max()))


def test_machine_code_of_a_whole_block_has_the_gradients_of_pytorch() -> None:
    block = Block(cells.get("elman")(6, 6), True, True, True)

    compare_with_pytorch(FusedLayer(block, "float64", True), block, 1e-12, has_dropout=True)


@pytest.mark.usefixtures("in_python")
@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (2, 2), (3, 16)])
@pytest.mark.parametrize("name", ["gru", "lstm", "minlstm", "slstm"])
def test_sizes_of_one_unit_one_row_and_one_step(name: str, sizes: tuple[int, int]) -> None:
    block = Block(cells.get(name)(*sizes))
    for dtype in TOLERANCES:
        for time, batch in ((1, 1), (4, 1), (1, 3)):
            options: dict[str, Any] = {"dtype": dtype_of(dtype), "time": time, "batch": batch}
            compare_with_pytorch(FusedLayer(block, dtype), block, TOLERANCES[dtype], **options)


def check_random_cell(cell: RandomCell, dtype: str) -> None:
    """Compare with PyTorch, unless the results or gradients of the random equation are too large."""
    block = Block(cell)
    sequence = random_sequence(block, dtype_of(dtype), time=4, batch=3)
    with np.errstate(all="ignore"):
        fused = FusedLayer(block, dtype)
        actual, expected = sequence.run(fused), sequence.run(reference(block))
    if any(not array.isfinite().all() or array.abs().max() > 1e5 for array in expected.values()):
        return
    for name, array in expected.items():
        if dtype == "float64":
            np.testing.assert_allclose(actual[name], array, rtol=1e-9, atol=1e-9, err_msg=name)
        else:
            assert actual[name].isfinite().all(), name


def check_in_python(cell: RandomCell) -> None:
    """Check a random cell in the precisions whose generated code differs, without Numba."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "load_source", load_in_python)
        check_random_cell(cell, "float64")
        check_random_cell(cell, "bfloat16")


@given(cell=random_cells())
@settings(max_examples=40, deadline=None)
def test_random_cells_have_the_gradients_of_pytorch(cell: RandomCell) -> None:
    check_in_python(cell)


@pytest.mark.fuzz
@given(cell=random_cells())
@settings(max_examples=1000, deadline=None)
def test_many_random_cells_have_the_gradients_of_pytorch(cell: RandomCell) -> None:
    check_in_python(cell)


@pytest.mark.usefixtures("in_python")
def test_gradients_pass_the_numerical_check_of_pytorch() -> None:
    block = Block(cells.get("lstm")(2, 3))
    fused = FusedLayer(block, "float64")
    sequence = random_sequence(block, time=3, batch=2)
    names = list(sequence.params)

    def run(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, *weights: torch.Tensor) -> Any:
        y, (h, c) = fused(nest(dict(zip(names, weights, strict=True))), x, (h, c))
        return y, h, c

    arguments = [sequence.x, *sequence.state, *sequence.params.values()]

    assert torch.autograd.gradcheck(run, [argument.detach().requires_grad_() for argument in arguments])


def gru_layer() -> tuple[Block, FusedLayer, Sequence]:
    """Return a compiled layer, and arguments whose rows two threads share."""
    block = Block(cells.get("gru")(7, 6))
    return block, FusedLayer(block, "float64"), random_sequence(block, batch=20)


@pytest.fixture
def two_threads() -> Any:
    """Run PyTorch in two threads."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.usefixtures("two_threads")
def test_two_threads_compute_the_same_as_one() -> None:
    block, fused, sequence = gru_layer()

    for batch in (1, 8, 9, 17, 33):
        compare_with_pytorch(fused, block, 1e-12, batch=batch)
    torch.set_num_threads(1)
    expected = sequence.run(fused)
    torch.set_num_threads(2)
    actual = sequence.run(fused)

    assert torch.equal(actual["y"], expected["y"])
    assert_same(actual, expected)


@pytest.mark.usefixtures("two_threads")
def test_threads_of_python_run_the_rows_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_openmp", lambda: None)
    block, fused, _ = gru_layer()

    compare_with_pytorch(fused, block, 1e-12, batch=20)


SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from fused_layers import compare_with_pytorch
from revgen.networks.block import Block
from revgen.networks.fused.layer import FusedLayer
from revgen.registry import cells
torch.set_num_threads(2)
block = Block(cells.get("gru")(7, 6))
compare_with_pytorch(FusedLayer(block, "float64"), block, 1e-12, batch=20)
"""


@pytest.mark.parametrize("variable", ["OMP_THREAD_LIMIT=1", pytest.param("OMP_DYNAMIC=true", marks=pytest.mark.slow)])
def test_openmp_may_start_fewer_threads_than_requested(variable: str, request: pytest.FixtureRequest) -> None:
    tests = str(request.config.rootpath / "tests")
    command = ["env", variable, sys.executable, "-c", SCRIPT, tests]

    subprocess.run(command, check=True, capture_output=True, timeout=120)


def test_two_python_threads_can_train_at_once() -> None:
    _, fused, sequence = gru_layer()
    expected = sequence.run(fused)

    with ThreadPoolExecutor(4) as pool:
        for actual in pool.map(lambda _: sequence.run(fused), range(40)):
            assert_same(actual, expected)


def test_input_need_not_be_contiguous() -> None:
    _, fused, sequence = gru_layer()
    expected = sequence.run(fused)
    sequence.x = sequence.x.transpose(0, 1).contiguous().transpose(0, 1)
    sequence.state = sequence.state.t().contiguous().t()
    sequence.d_output = sequence.d_output.transpose(0, 2).contiguous().transpose(0, 2)
    sequence.params["layer.U"] = sequence.params["layer.U"].t().contiguous().t()

    assert_same(sequence.run(fused), expected)


def test_initial_state_and_input_need_no_gradient() -> None:
    block, fused, sequence = gru_layer()
    gradients = []
    for run in (fused, reference(block)):
        params = {name: value.detach().clone().requires_grad_() for name, value in sequence.params.items()}
        y, _ = run(nest(params), sequence.x, sequence.state, None)
        gradients.append(torch.autograd.grad(y.sum(), list(params.values())))

    for actual, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_backward_pass_can_be_repeated_but_not_differentiated() -> None:
    _, fused, sequence = gru_layer()
    x = sequence.x.requires_grad_()
    y, _ = fused(nest(sequence.params), x, sequence.state)
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(y.sum(), x, retain_graph=True)

    assert torch.equal(first, second)
    with pytest.raises(RuntimeError):
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        torch.autograd.grad(gradient.sum(), x)


def test_state_may_be_carried_from_chunk_to_chunk() -> None:
    block, fused, sequence = gru_layer()
    p, state = nest(sequence.params), sequence.state
    whole, last = reference(block)(p, sequence.x, state, None)
    chunks = []
    for chunk in sequence.x.chunk(3):
        y, state = fused(p, chunk, state)
        chunks.append(y)

    np.testing.assert_allclose(torch.cat(chunks), whole, atol=1e-14)
    np.testing.assert_allclose(state, last, atol=1e-14)


def test_callback_is_called_only_if_the_machine_code_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path / "cache"))
    calls: list[None] = []
    block = Block(cells.get("elman")(11, 3))

    FusedLayer(block, "float64", before_compilation=lambda: calls.append(None))
    FusedLayer(block, "float64", before_compilation=lambda: calls.append(None))

    assert len(calls) == 1


def forget_modules() -> None:
    """Forget the generated modules, as a new process does."""
    for name in [name for name in sys.modules if name.startswith("revgen_program_")]:
        del sys.modules[name]


@pytest.mark.parametrize("damage", [b"", pytest.param(b"damaged", marks=pytest.mark.slow)])
def test_damaged_machine_code_is_compiled_again(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVGEN_CACHE", str(tmp_path))
    block = Block(cells.get("rnn")(5, 3))
    forget_modules()
    FusedLayer(block, "float64")
    files = list(tmp_path.rglob("*.nb?"))
    for file in files:
        file.write_bytes(damage)
    forget_modules()

    compare_with_pytorch(FusedLayer(block, "float64"), block, 1e-12)

    assert len(files) == 6
    assert all(len(file.read_bytes()) > 100 for file in files)
