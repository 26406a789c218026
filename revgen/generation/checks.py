"""Checks for filters and guides, which ``revgen.testing`` exports."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from revgen.generation.constraints import TokenHistory
from revgen.generation.filters import Filter, FilterContext, is_immutable, needs_tokens
from revgen.generation.guides import Guide
from revgen.tokenizers import Tokenizer

VOCAB_SIZE = 50
TOLERANCE = 1e-5
GUIDED_TEXTS, GUIDED_TOKENS = 20, 40
"""The number of texts that a guide is followed through, and their length."""


def check_filter(filter: Filter) -> None:
    """Check a sampling filter, which need not be registered.

    - The result has the shape and type of the logits, which do not change, and each text keeps a possible token.
    - Rows of a batch do not affect each other, and calling the filter again gives the same result.
    - NumPy and PyTorch agree to 1e-5.
    - If the filter is recorded on a GPU, the recording knows all of its parameters.
    """
    deque(filter_checks(filter), maxlen=0)


def filter_checks(filter: Filter) -> Iterator[str]:
    """Check a filter as ``check_filter`` does, and yield a description of each property that holds."""
    import torch

    rng = np.random.default_rng(0)
    positions = np.array([0, 5, 16])
    logits = rng.normal(0, 3, (len(positions), VOCAB_SIZE)).astype(np.float32)
    logits[:, :2] = -np.inf  # as the start of a document and unknown tokens
    history = TokenHistory((rng.integers(2, VOCAB_SIZE, 9).tolist() for _ in positions), VOCAB_SIZE)

    def run(rows: slice = slice(None), convert: Callable[[Any], Any] = np.array) -> tuple[Any, Any]:
        array, context = convert(logits[rows]), FilterContext(convert(positions[rows]), 0.7)
        if needs_tokens(filter):
            context = context._replace(tokens=history.tokens[rows], counts=convert(history.counts[rows]))
        return array, filter(array, context)

    array, result = run()
    assert isinstance(result, np.ndarray), f"the result is a {type(result).__name__}, not an array"
    got = f"{result.dtype} of shape {result.shape}, not {logits.dtype} of shape {logits.shape}"
    assert result.shape == logits.shape and result.dtype == logits.dtype, f"the result is {got}"
    yield "the result has the shape and type of the logits"
    assert (array == logits).all(), "the filter changes its argument: return new logits"
    yield "the logits do not change"
    assert not np.isnan(result).any() and (result < np.inf).all(), "the result holds NaN or infinity"
    assert (result > -np.inf).any(-1).all(), "no token is possible for some text: keep at least the most likely one"
    yield "each text keeps a possible token"
    _compare_logits(run()[1], result, "two calls with the same logits (the filter must not remember anything)")
    for row in range(len(positions)):
        rows = slice(row, row + 1)
        _compare_logits(run(rows)[1], result[rows], "a row alone, and in a batch")
    yield "rows of a batch do not affect each other"
    _compare_logits(run(convert=torch.tensor)[1], result, "the results of NumPy and PyTorch")
    yield "NumPy and PyTorch agree"
    yield _check_recording(filter)


def _check_recording(filter: Filter) -> str:
    if not is_immutable(filter):
        return "a GPU calls the filter for each token, as it is not a frozen dataclass with hashable fields"
    fields = {field.name for field in dataclasses.fields(filter)}  # type: ignore[arg-type]
    hidden = sorted(vars(filter).keys() - fields)
    assert not hidden, f"a recording on a GPU would not notice a change of {', '.join(hidden)}: make it a field"
    same = copy.copy(filter)
    assert same == filter and hash(same) == hash(filter), "equal filters compare as different: do not define __eq__"
    return "a recording on a GPU knows all parameters"


def _compare_logits(actual: Any, expected: Any, names: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    is_same = np.isclose(actual, expected, TOLERANCE, TOLERANCE)  # -inf is close to -inf
    assert is_same.all(), f"{names} differ: {actual[~is_same][0]} and {expected[~is_same][0]}"


def check_guide(guide: Guide, tokenizer: Tokenizer, prompt: str = "") -> None:
    """Check a guide of ``generate`` on random texts that it allows, with a tokenizer.

    - ``allowed_tokens`` returns a Boolean array (vocab,), with a token or the end of the document in it.
    - ``next_state`` returns a new state and does not change the one it is given.
    """
    deque(guide_checks(guide, tokenizer, prompt), maxlen=0)


def guide_checks(guide: Guide, tokenizer: Tokenizer, prompt: str = "") -> Iterator[str]:
    """Check a guide as ``check_guide`` does, and yield a description of each property that holds."""
    assert isinstance(guide, Guide), "a guide has initial_state, next_state, allowed_tokens and is_done"
    for seed in range(GUIDED_TEXTS):
        rng, state = np.random.default_rng(seed), guide.initial_state(prompt)
        for remaining in range(GUIDED_TOKENS, 0, -1):
            allowed = guide.allowed_tokens(state, remaining)
            assert isinstance(allowed, np.ndarray) and allowed.dtype == bool, "allowed_tokens returns a Boolean array"
            assert allowed.shape == (len(tokenizer),), f"allowed_tokens returns the shape {allowed.shape}, not (vocab,)"
            assert allowed.any(), "no token is allowed, and is_done is False: allow Tokenizer.eos_id"
            before = allowed.copy()
            token = int(rng.choice(np.flatnonzero(allowed)))
            next_state = guide.next_state(state, token)
            again = guide.allowed_tokens(state, remaining)
            assert (again == before).all(), "next_state changes the state it is given: return a new one"
            if token == tokenizer.eos_id or guide.is_done(next_state):
                break
            state = next_state
    yield "allowed_tokens returns a mask with a possible token"
    yield "a state does not change"
