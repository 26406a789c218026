"""The conformance kit: what a cell, an architecture or a tokenizer must hold to, for your tests and ours.

>>> from revgen.testing import check_cell
>>> check_cell("lstm")

Each check raises AssertionError with what went wrong, and returns nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from revgen.cells.cell import Cell
from revgen.language_model import LanguageModel
from revgen.networks.stack import make_cell
from revgen.ops import tree_map
from revgen.registry import cells
from revgen.tokenizers import Tokenizer

TIME, BATCH, INPUT, HIDDEN = 7, 3, 5, 8
TOLERANCE = 1e-5
TEXTS = ["the band plays the song again and again. ", "a song of the sea, the sand and the band. "] * 20


def check_cell(cell: str | type[Any], **options: Any) -> None:
    """Hold a cell to its contract: a registered name, or a class (which is registered for the while).

    - its parameters, output and state have the shapes that it says, whatever the batch;
    - a sequence read again, or in two parts, gives the same, so nothing hides beside the state;
    - each row of a batch is computed on its own, and each time step depends on the ones before it alone;
    - its equation on NumPy, on PyTorch, and the fused kernel where it names one, agree to 1e-5;
    - every parameter that is a matrix gets a gradient;
    - a model of it trains, generates, saves and loads.
    """
    name = cell if isinstance(cell, str) else _register(cell)
    try:
        _check_equation(make_cell(name, INPUT, HIDDEN, options))
        _check_equation(make_cell(name, HIDDEN, HIDDEN, options))
        check_model(f"{name}-char", hidden_size=HIDDEN, num_layers=2, cell_options=options)
    finally:
        if name != cell:
            cells.unregister(name)


def check_model(name: str, **options: Any) -> None:
    """Put an architecture through everything that the interface promises, on a small text: ``fit``, ``generate``,
    ``stream``, ``score``, ``evaluate``, ``save`` and ``load``."""
    import revgen

    model = revgen.create(name, **options)
    fitting: dict[str, Any] = {} if not hasattr(model, "make_network") else {"epochs": 3, "progress": False}
    history = model.fit(TEXTS, valid=0.2, **fitting)
    losses = [epoch.train_loss for epoch in history]
    assert np.isfinite(losses).all(), f"{name}: the training loss is not finite: {losses}"
    assert len(losses) < 2 or losses[-1] < losses[0], f"{name}: the training loss does not fall: {losses}"

    text = model.generate("the ", seed=1, max_tokens=20)
    assert text.startswith("the "), f"{name}: generate does not begin with the prompt: {text!r}"
    assert text == model.generate("the ", seed=1, max_tokens=20), f"{name}: the same seed gives another text"
    streamed = "".join(model.stream("the ", seed=1, max_tokens=20))
    assert "the " + streamed == text, f"{name}: stream gives {streamed!r}, generate {text!r}"
    many = model.generate("the ", n=5, seed=1, max_tokens=20)
    assert len(many) == 5 and all(t.startswith("the ") for t in many), f"{name}: n=5 gives {many!r}"

    score = model.score(TEXTS[0])
    assert score.logprobs.shape == (len(score.tokens) + 1,), f"{name}: score has not one number for each token"
    assert (score.logprobs <= 1e-6).all(), f"{name}: score has log-probabilities above 0"
    evaluation = model.evaluate(TEXTS[:1])
    expected = -score.total / len(TEXTS[0])
    assert abs(evaluation.nats_per_char - expected) < 1e-4, (
        f"{name}: evaluate gives {evaluation.nats_per_char} nats per character, score {expected}"
    )
    _check_normalized(model)

    with tempfile.TemporaryDirectory() as directory:
        loaded = revgen.load(model.save(Path(directory) / "model"))
    assert loaded.config == model.config, f"{name}: load gives another configuration"
    assert loaded.generate("the ", seed=1, max_tokens=20) == text, f"{name}: the loaded model writes another text"


def check_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    """Hold a trained tokenizer to its contract on one text."""
    ids = tokenizer.encode(text)
    assert ids.ndim == 1 and ids.dtype == tokenizer.dtype, f"encode gives {ids.dtype} of shape {ids.shape}"
    assert (ids > tokenizer.unk_id).all() and (ids < len(tokenizer)).all(), f"{text!r} spells a special token"
    assert tokenizer.decode(ids) == text, f"{text!r} comes back as {tokenizer.decode(ids)!r}"
    spelled = _spelled(tokenizer, ids.tolist())
    assert spelled == text.encode("utf-8", "surrogatepass"), f"{text!r} is spelled as {spelled!r}"
    assert tokenizer.char_counts[ids].sum() == len(text), f"{text!r} has other characters by char_counts"
    decode = tokenizer.stream_decoder()
    streamed = "".join(decode(int(i)) for i in ids) + decode(tokenizer.eos_id)
    assert streamed == text, f"{text!r} is streamed as {streamed!r}"
    again = type(tokenizer).from_bytes(tokenizer.to_bytes())
    assert again == tokenizer and (again.encode(text) == ids).all(), "its file gives another tokenizer"


def _spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> bytes:
    spelled, waiting = b"", list[int]()
    for i in ids:
        if i in tokenizer.parts:
            waiting.append(i)
            character = tokenizer.spelled_character(waiting)
            if character is not None:
                spelled += character.encode("utf-8", "surrogatepass")
                waiting.clear()
        else:
            spelled += tokenizer.token_bytes[i]
    return spelled


def _register(cell: type[Any]) -> str:
    name = f"checked-{cell.__name__.lower()}"
    cells.register(name, replace=True)(cell)
    return name


def _check_equation(cell: Cell) -> None:
    import torch

    random = np.random.default_rng(0)
    values = {
        name: np.asarray(cell.init_param(name, shape, random), np.float32)
        for name, shape in cell.param_shapes().items()
    }
    for name, shape in cell.param_shapes().items():
        assert values[name].shape == tuple(shape), f"initialize({name!r}) gives {values[name].shape}, not {shape}"
        # Biases begin at zero, where a mistake in them would not show.
        values[name] = values[name] + random.normal(0, 0.1, shape).astype(np.float32)
    x = random.normal(size=(TIME, BATCH, cell.input_size)).astype(np.float32)
    p = SimpleNamespace(**{name: torch.tensor(value, requires_grad=True) for name, value in values.items()})

    def run(inputs: Any, state: Any = None) -> tuple[Any, Any]:
        return _run(cell, p, torch.as_tensor(inputs), state)

    whole, last = run(x)
    assert tuple(whole.shape) == (TIME, BATCH, cell.output_size), (
        f"the output has the shape {tuple(whole.shape)}, not (time, batch, output) = {(TIME, BATCH, cell.output_size)}"
    )
    tree_map(lambda array: _check_rows(array, BATCH), last)

    _same(run(x)[0], whole, "one sequence read twice (is there state beside the state?)")
    other = x.copy()
    other[4:] += 1
    _same(run(other)[0][:4], whole[:4], "the first steps before one and another future")
    steps, state = [], None
    for step in x[:, None]:
        output, state = run(step, state)
        steps.append(output)
    _same(torch.cat(steps), whole, "a sequence step by step, and at once")
    begun, middle = run(x[:3])
    rest, end = run(x[3:], middle)
    _same(torch.cat([begun, rest]), whole, "a sequence in two parts, and at once")
    _same_state(end, last, "the state behind a sequence in two parts, and at once")
    _same(run(x[:, 1:2])[0], whole[:, 1:2], "a row alone, and in a batch")

    whole.sum().backward()
    for name, value in vars(p).items():
        if value.ndim > 1:
            assert value.grad is not None and value.grad.abs().sum() > 0, f"the parameter {name} gets no gradient"

    if cell.supports_numpy:
        numpy = SimpleNamespace(**values)
        zeros = cell.initial_state(BATCH, lambda shape: np.zeros(shape, np.float32))
        output, state = cell.sequence(numpy, cell.project(numpy, x), zeros)
        assert isinstance(output, np.ndarray), f"on NumPy the output is a {type(output).__name__}"
        assert output.dtype == np.float32, f"on NumPy float32 becomes {output.dtype}"
        _same(output, whole, "the equation on NumPy, and on PyTorch")
        _same_state(state, last, "the state on NumPy, and on PyTorch")
    if cell.fused_kernel is not None:
        from revgen.networks.recurrent import run_kernel

        try:
            fused, state = run_kernel(cell, p, torch.as_tensor(x), cell.initial_state(BATCH, torch.zeros))
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise AssertionError(
                f"the kernel {cell.fused_kernel} does not take what the cell gives it: {error}"
            ) from error
        _same(fused, whole, f"the kernel {cell.fused_kernel}, and the equation")
        _same_state(state, last, f"the state of the kernel {cell.fused_kernel}, and of the equation")


def _run(cell: Cell, p: Any, x: Any, state: Any) -> tuple[Any, Any]:
    import torch

    from revgen.networks.module_cell import ModuleCell

    if isinstance(cell, ModuleCell):
        return cell.run(p, x, state, training=False)
    state = cell.initial_state(x.shape[1], torch.zeros) if state is None else state
    return cell.sequence(p, cell.project(p, x), state)


def _check_normalized(model: LanguageModel) -> None:
    tokens = np.array([[model.tokenizer.bos_id, i] for i in range(3, min(len(model.tokenizer), 6))]).T
    logits, _ = model.forward(tokens, model.initial_state(tokens.shape[1]))
    assert logits.shape == (*tokens.shape, len(model.tokenizer)), (
        f"{model.name}: logits have the shape {logits.shape}, not (time, batch, vocab)"
    )
    assert np.isfinite(logits.max(-1)).all(), f"{model.name}: logits are not finite"


def _check_rows(array: Any, batch: int) -> Any:
    assert array.shape[:1] == (batch,), f"an array of the state has the shape {tuple(array.shape)}, not (batch, …)"
    return array


def _same(one: Any, other: Any, what: str) -> None:
    difference = float(np.abs(_array(one) - _array(other)).max())
    assert difference <= TOLERANCE, f"{what} differ by {difference:.2g}"


def _same_state(one: Any, other: Any, what: str) -> None:
    leaves: list[list[Any]] = [[], []]
    for state, found in zip((one, other), leaves, strict=True):
        tree_map(found.append, state)
    assert len(leaves[0]) == len(leaves[1]), f"{what} have {len(leaves[0])} and {len(leaves[1])} arrays"
    for a, b in zip(*leaves, strict=True):
        _same(a, b, what)


def _array(value: Any) -> Any:
    return value.detach().numpy() if hasattr(value, "detach") else value
