"""Checks for cells, architectures, tokenizers, filters and guides, for revgen's tests and yours.

>>> from revgen.testing import check_cell
>>> check_cell("lstm")

Each check returns nothing, or raises AssertionError with a message that says what is wrong. ``revgen check
my_package:MyCell`` runs the same checks, and prints each property that the generators ``cell_checks``, … yield.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import revgen
from revgen.architectures.neural import NeuralModel
from revgen.cells.cell import Cell
from revgen.corpus import read
from revgen.generation.checks import (
    check_filter as check_filter,
    check_guide as check_guide,
    filter_checks as filter_checks,
    guide_checks as guide_checks,
)
from revgen.model import Model
from revgen.networks.stack import make_cell
from revgen.ops import tree_map
from revgen.registry import Registry, architectures, cells
from revgen.tokenizers import Tokenizer

TIME, BATCH, INPUT, HIDDEN = 7, 3, 5, 8
TOLERANCE = 1e-5
"""The largest allowed difference between results that should be equal, relative to 1 plus their absolute value."""
TEXTS = ["the band plays the song again and again. ", "a song of the sea, the sand and the band. "] * 20
TOKENIZER_TEXTS = ["", TEXTS[0], "  A new word,\ttwo\n\nlines. ", "漢字 🎸 e\u0301", "<s></s><unk>"]
"""Known words, unknown words, white space, unknown characters, and text that looks like special tokens."""

Checks = Generator[str, None, None]
"""A generator that runs checks and yields a description of each property that holds."""

Run = Callable[..., tuple[Any, Any]]
"""``run(inputs, state=None)`` reads inputs (time, batch, …) and returns outputs (time, batch, size) and a state."""


def check_cell(cell: str | type[Any], **options: Any) -> None:
    """Check a cell, given by its registered name or by its class, which need not be registered.

    - Parameters, outputs and state have the shapes that the cell declares, for any batch size.
    - Reading a sequence twice, in two parts or step by step gives the same outputs, so the state is complete.
    - Rows of a batch do not affect each other, and no time step depends on later ones.
    - NumPy, PyTorch and the fused kernel, if the cell names one, agree to 1e-5.
    - Every matrix gets a gradient.
    - A model of the cell trains, generates, saves and loads (``check_model``).
    """
    _run_all(cell_checks(cell, **options))


def cell_checks(cell: str | type[Any], **options: Any) -> Checks:
    """Check a cell as ``check_cell`` does, and yield a description of each property that holds."""
    with _registered(cells, cell) as name:
        yield from _check_equation(make_cell(name, INPUT, HIDDEN, options))
        _run_all(_check_equation(make_cell(name, HIDDEN, HIDDEN, options)))
        yield from model_checks(f"{name}-char", hidden_size=HIDDEN, num_layers=2, cell_options=options)


def check_model(model: str | type[Any], **options: Any) -> None:
    """Check an architecture, given by the name of a model or by its class, which need not be registered.

    ``options`` are options of ``create``. A network is checked with its initial weights first:

    - Weights, logits and state have the declared shapes.
    - Reading a text twice, in two parts or token by token gives the same logits, so the state is complete.
    - Rows of a batch do not affect each other, and no logits depend on later tokens.
    - Every matrix gets a gradient.
    - NumPy and PyTorch agree to 1e-5.

    Every model is then fitted on a small text, and must generate, stream, score, evaluate, save and load.
    """
    _run_all(model_checks(model, **options))


def model_checks(model: str | type[Any], **options: Any) -> Checks:
    """Check an architecture as ``check_model`` does, and yield a description of each property that holds."""
    if isinstance(model, str):
        yield from _check_model(model, options)
        return
    with _registered(architectures, model) as name:
        level = "char" if model.levels is None else model.levels[0]
        yield from _check_model(f"{name}-{level}", options)


def _check_model(name: str, options: dict[str, Any]) -> Checks:
    model = revgen.create(name, **options)
    fit_options: dict[str, Any] = {}
    if isinstance(model, NeuralModel):
        yield from _check_network(name, options)
        fit_options = {"epochs": 3, "progress": False}
    history = model.fit(TEXTS, valid=0.2, **fit_options)
    losses = [epoch.train_loss for epoch in history]
    assert np.isfinite(losses).all(), f"{name}: the training loss is not finite: {losses}"
    assert len(losses) < 2 or losses[-1] < losses[0], f"{name}: the training loss does not fall: {losses}"
    yield f"{name}: fit lowers the training loss"
    yield from _check_logits(model)
    yield from _check_methods(model)


def _check_methods(model: Any) -> Checks:
    """Check that a fitted model generates, streams, scores, evaluates, saves and loads."""
    name = model.name
    text = model.generate("the ", seed=1, max_tokens=20)
    assert text.startswith("the "), f"{name}: generate returned {text!r}, which does not begin with the prompt"
    assert text == model.generate("the ", seed=1, max_tokens=20), f"{name}: the same seed generates another text"
    streamed = "the " + "".join(model.stream("the ", seed=1, max_tokens=20))
    assert streamed == text, f"{name}: stream returned {streamed!r}, but generate {text!r}"
    texts = model.generate("the ", n=5, seed=1, max_tokens=20)
    assert len(texts) == 5 and all(t.startswith("the ") for t in texts), f"{name}: generate(n=5) returned {texts!r}"
    yield f"{name}: generate and stream return the same text for the same seed"

    score = model.score(TEXTS[0])
    expected_shape = (len(score.tokens) + 1,)
    assert score.logprobs.shape == expected_shape, (
        f"{name}: score returned log-probabilities of shape {score.logprobs.shape}, not {expected_shape}"
    )
    assert (score.logprobs <= 1e-6).all(), f"{name}: score returned log-probabilities above 0"
    evaluation = model.evaluate(TEXTS[:1])
    expected = -score.total / len(TEXTS[0])
    assert abs(evaluation.nats_per_char - expected) < 1e-4, (
        f"{name}: evaluate returned {evaluation.nats_per_char} nats per character, but score {expected}"
    )
    yield f"{name}: score and evaluate agree"

    with tempfile.TemporaryDirectory() as directory:
        loaded = revgen.load(model.save(Path(directory) / "model"))
    assert loaded.config == model.config, f"{name}: the loaded model has another configuration"
    loaded_text = loaded.generate("the ", seed=1, max_tokens=20)
    assert loaded_text == text, f"{name}: the loaded model generates {loaded_text!r}, not {text!r}"
    yield f"{name}: save and load keep the model"


def check_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    """Check that a trained tokenizer encodes and decodes a text without loss, streams it, and can be saved."""
    ids = tokenizer.encode(text)
    assert ids.ndim == 1 and ids.dtype == tokenizer.dtype, (
        f"encode returned {ids.dtype} of shape {ids.shape}, not {tokenizer.dtype} of one axis"
    )
    assert (ids > tokenizer.unk_id).all() and (ids < len(tokenizer)).all(), f"{text!r} was encoded with special tokens"
    assert tokenizer.decode(ids) == text, f"{text!r} was decoded as {tokenizer.decode(ids)!r}"
    spelled = _spell(tokenizer, ids.tolist())
    assert spelled == text.encode("utf-8", "surrogatepass"), f"token_bytes of {text!r} are {spelled!r}"
    assert tokenizer.char_counts[ids].sum() == len(text), f"char_counts do not sum to the length of {text!r}"
    decode = tokenizer.stream_decoder()
    streamed = "".join(decode(int(i)) for i in ids) + decode(tokenizer.eos_id)
    assert streamed == text, f"stream_decoder decoded {text!r} as {streamed!r}"
    loaded = type(tokenizer).from_bytes(tokenizer.to_bytes())
    assert loaded == tokenizer and (loaded.encode(text) == ids).all(), "from_bytes(to_bytes()) gives another tokenizer"


def tokenizer_checks(tokenizer: type[Tokenizer]) -> Checks:
    """Train a tokenizer on a small text, check it on several texts, and yield a description of each property."""
    trained = tokenizer.train(TEXTS)
    for text in TOKENIZER_TEXTS:
        check_tokenizer(trained, text)
        yield f"{text!r} is encoded, decoded and streamed without loss"


def _spell(tokenizer: Tokenizer, ids: Sequence[int]) -> bytes:
    """Return the bytes of a text from the bytes of its tokens and the characters that digits spell."""
    spelled, digits = b"", list[int]()
    for i in ids:
        if i in tokenizer.partial_char_ids:
            digits.append(i)
            character = tokenizer.spelled_character(digits)
            if character is not None:
                spelled += character.encode("utf-8", "surrogatepass")
                digits.clear()
        else:
            spelled += tokenizer.token_bytes[i]
    return spelled


def _run_all(checks: Iterable[str]) -> None:
    deque(checks, maxlen=0)


@contextmanager
def _registered(registry: Registry[Any], item: str | type[Any]) -> Iterator[str]:
    """Yield the registered name of a class. An unregistered class is registered until the checks end."""
    names = [item] if isinstance(item, str) else [name for name in registry.names() if registry.get(name) is item]
    if names:
        yield names[0]
        return
    name = "".join(filter(str.isalnum, item.__name__.lower()))  # type: ignore[union-attr]
    name = f"checked-{name}"
    registry.register(name, replace=True)(item)
    try:
        yield name
    finally:
        registry.unregister(name)


def _check_equation(cell: Cell) -> Checks:
    """Check one cell without a network around it."""
    import torch

    rng = np.random.default_rng(0)
    values: dict[str, Any] = {}
    for name, shape in cell.param_shapes().items():
        value = np.asarray(cell.init_param(name, shape, rng), np.float32)
        assert value.shape == tuple(shape), f"init_param({name!r}) returned the shape {value.shape}, not {shape}"
        # Biases are initially 0, which would hide mistakes.
        values[name] = value + rng.normal(0, 0.1, shape).astype(np.float32)
    x = rng.normal(size=(TIME, BATCH, cell.input_size)).astype(np.float32)
    altered = x.copy()
    altered[4:] += 1
    p = SimpleNamespace(**{name: torch.tensor(value, requires_grad=True) for name, value in values.items()})

    def run(inputs: Any, state: Any = None) -> tuple[Any, Any]:
        return _run_cell(cell, p, torch.as_tensor(inputs), state)

    outputs, last = yield from _check_reading(run, x, altered, cell.output_size)
    outputs.sum().backward()
    yield from _check_gradients({name: value.grad for name, value in vars(p).items()})

    if cell.supports_numpy:
        numpy_p = SimpleNamespace(**values)
        start = cell.initial_state(BATCH, lambda shape: np.zeros(shape, np.float32))
        output, state = cell.sequence(numpy_p, cell.project(numpy_p, x), start)
        yield from _check_numpy(output, state, outputs, last)
    if cell.fused_kernel is not None:
        from revgen.networks.recurrent import run_kernel

        try:
            fused, state = run_kernel(cell, p, torch.as_tensor(x), cell.initial_state(BATCH, torch.zeros))
        except (RuntimeError, LookupError, TypeError, ValueError) as error:
            raise AssertionError(f"the fused kernel {cell.fused_kernel} rejects the weights: {error}") from error
        kernel = f"the fused kernel {cell.fused_kernel} and the cell give different"
        _assert_equal(fused, outputs, f"{kernel} outputs")
        _assert_states_equal(state, last, f"{kernel} states")
        yield f"the fused kernel {cell.fused_kernel} and the cell agree"


def _run_cell(cell: Cell, p: Any, x: Any, state: Any) -> tuple[Any, Any]:
    import torch

    from revgen.networks.module_cell import ModuleCell

    if isinstance(cell, ModuleCell):
        return cell.run(p, x, state, training=False)
    state = cell.initial_state(x.shape[1], torch.zeros) if state is None else state
    return cell.sequence(p, cell.project(p, x), state)


def _check_network(name: str, options: dict[str, Any]) -> Checks:
    """Check the network of a neural model with its initial weights."""
    import torch

    model: Any = revgen.create(name, **options)
    if getattr(model.config, "hidden_size", 0) is None:  # ``fit`` would choose it
        model = revgen.create(name, **options, hidden_size=HIDDEN)
    tokenizer = model.tokenizer_for(read(TEXTS))
    model.prepare(tokenizer, seed=0)
    for weight, shape in model.weight_shapes().items():
        array = model.weights[weight]
        assert array.shape == tuple(shape), (
            f"{name}: init_weight({weight!r}) returned the shape {array.shape}, not {shape} as in param_shapes"
        )
        assert np.isfinite(array).all(), f"{name}: init_weight({weight!r}) returned values that are not finite"
    rng = np.random.default_rng(0)
    model.weights = {
        weight: array + rng.normal(0, 0.1, array.shape).astype(np.float32) for weight, array in model.weights.items()
    }
    tokens = rng.integers(0, len(tokenizer), (TIME, BATCH))
    tokens[0] = tokenizer.bos_id
    altered = tokens.copy()
    altered[4:] = (tokens[4:] + 1) % len(tokenizer)

    def run(inputs: Any, state: Any = None) -> tuple[Any, Any]:
        logits, state = model.network(torch.as_tensor(inputs), state)
        return logits, state

    prefix = f"{name}, on PyTorch: "
    logits, last = yield from _check_reading(run, tokens, altered, len(tokenizer), prefix, "logits", "vocab")
    logits.logsumexp(-1).sum().backward()
    yield from _check_gradients({n: value.grad for n, value in model.network.named_weights().items()}, f"{name}: ")
    with torch.inference_mode():
        numpy_logits, state = model.forward(tokens, model.initial_state(BATCH))
        yield from _check_numpy(numpy_logits, state, logits, last, f"{name}: ")


def _check_logits(model: Model) -> Checks:
    """Check the logits that a fitted model generates with."""
    vocab, bos = len(model.tokenizer), model.tokenizer.bos_id
    tokens = np.random.default_rng(0).integers(model.tokenizer.unk_id + 1, vocab, (TIME, BATCH))
    tokens[0] = bos
    altered = tokens.copy()
    altered[4:] = tokens[4:][::-1]

    def run(inputs: Any, state: Any = None) -> tuple[Any, Any]:
        return model.forward(inputs, model.initial_state(inputs.shape[1]) if state is None else state)

    logits, _ = yield from _check_reading(run, tokens, altered, vocab, f"{model.name}: ", "logits", "vocab")
    assert np.isfinite(_array(logits).max(-1)).all(), f"{model.name}: the logits of a position are NaN, inf or all -inf"
    yield f"{model.name}: the logits are finite"


def _check_reading(
    run: Run, x: Any, altered: Any, size: int, prefix: str = "", noun: str = "outputs", axis: str = "output"
) -> Generator[str, None, tuple[Any, Any]]:
    """Check shapes, the state, and that other rows and later steps have no effect; return outputs and last state.

    ``altered`` equals the inputs ``x`` only in the first four steps.
    """
    outputs, last = run(x)
    expected = (*x.shape[:2], size)
    assert tuple(outputs.shape) == expected, (
        f"{prefix}the {noun} have the shape {tuple(outputs.shape)}, not (time, batch, {axis}) = {expected}"
    )
    tree_map(lambda array: _check_rows(array, x.shape[1], prefix), last)
    yield f"{prefix}the {noun} and the state have the declared shapes"

    hint = "a call may change nothing but the returned state"
    _assert_equal(run(x)[0], outputs, f"{prefix}reading a sequence twice gives different {noun}; {hint}")
    yield f"{prefix}reading a sequence twice gives the same {noun}"
    hint = "a step may depend only on itself and the steps before it"
    _assert_equal(run(altered)[0][:4], outputs[:4], f"{prefix}the {noun} of a step depend on later steps; {hint}")
    yield f"{prefix}the {noun} of a step do not depend on later steps"

    hint = "the returned state must hold all that later steps need"
    first, middle = run(x[:3])
    second, end = run(x[3:], middle)
    in_parts = np.concatenate([_array(first), _array(second)])
    _assert_equal(in_parts, outputs, f"{prefix}reading in two parts and at once gives different {noun}; {hint}")
    _assert_states_equal(end, last, f"{prefix}reading in two parts and at once ends in different states")
    steps, state = [], None
    for step in x[:, None]:
        output, state = run(step, state)
        steps.append(_array(output))
    _assert_equal(
        np.concatenate(steps), outputs, f"{prefix}reading step by step and at once gives different {noun}; {hint}"
    )
    yield f"{prefix}reading in parts, step by step and at once gives the same {noun}"

    hint = "no row may affect another"
    _assert_equal(
        run(x[:, 1:2])[0], outputs[:, 1:2], f"{prefix}a row alone and in a batch gives different {noun}; {hint}"
    )
    yield f"{prefix}the rows of a batch do not affect each other"
    return outputs, last


def _check_gradients(gradients: dict[str, Any], prefix: str = "") -> Checks:
    for name, gradient in gradients.items():
        has_gradient = gradient is not None and (gradient.ndim < 2 or bool(gradient.abs().sum() > 0))
        assert has_gradient, f"{prefix}the weight {name} gets no gradient: is it used?"
    yield f"{prefix}every matrix gets a gradient"


def _check_numpy(output: Any, state: Any, expected: Any, expected_state: Any, prefix: str = "") -> Checks:
    """Check that NumPy gives the same results as PyTorch."""
    assert isinstance(output, np.ndarray), f"{prefix}on NumPy the output is a {type(output).__name__}, not an array"
    assert output.dtype == np.float32, f"{prefix}on NumPy the output is {output.dtype}, not float32"
    _assert_equal(output, expected, f"{prefix}NumPy and PyTorch give different outputs")
    _assert_states_equal(state, expected_state, f"{prefix}NumPy and PyTorch give different states")
    yield f"{prefix}NumPy and PyTorch agree"


def _check_rows(array: Any, batch: int, prefix: str) -> Any:
    assert array.shape[:1] == (batch,), (
        f"{prefix}an array of the state has the shape {tuple(array.shape)}, not (batch, …) with batch = {batch}"
    )
    return array


def _assert_equal(a: Any, b: Any, message: str) -> None:
    a, b = _array(a).astype(float), _array(b).astype(float)
    assert a.shape == b.shape, f"{message} (shapes {a.shape} and {b.shape})"
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0, np.abs(a - b) / (1 + np.abs(b)))
    largest = float(difference.max(initial=0))
    assert largest <= TOLERANCE, f"{message} (they differ by {largest:.2g})"


def _assert_states_equal(a: Any, b: Any, message: str) -> None:
    leaves: list[list[Any]] = [[], []]
    for state, arrays in zip((a, b), leaves, strict=True):
        tree_map(arrays.append, state)
    assert len(leaves[0]) == len(leaves[1]), f"{message} ({len(leaves[0])} and {len(leaves[1])} arrays)"
    for x, y in zip(*leaves, strict=True):
        _assert_equal(x, y, message)


def _array(value: Any) -> Any:
    return value.detach().numpy() if hasattr(value, "detach") else value
