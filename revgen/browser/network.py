"""``BrowserNetwork``: a network as a page describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.browser.javascript import JavaScriptWriter
from revgen.compiler import Program
from revgen.errors import OptionError
from revgen.ops import tree_map


@dataclass(frozen=True)
class BrowserNetwork:
    """A network as ``networks.js`` creates it: its kind, the settings of this kind, its weights and its parts."""

    kind: str
    settings: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]] = ()
    program: str | None = None
    """The source of the generated function."""
    parts: Sequence[BrowserNetwork] = field(default_factory=list)

    def describe(self, arrays: list[NDArray[Any]], programs: list[str]) -> dict[str, Any]:
        """Return the description as plain values. The weights and the programs are appended to these lists."""
        description = {"kind": self.kind, **self.settings}
        description["arrays"] = [len(arrays) + i for i in range(len(self.arrays))]
        arrays.extend(self.arrays)
        if self.program is not None:
            description["program"] = len(programs)
            programs.append(self.program)
        return description | {"parts": [part.describe(arrays, programs) for part in self.parts]}


def network_of_program(program: Program, weights: Mapping[str, NDArray[Any]], state: Any) -> BrowserNetwork:
    """Return the network of a program whose inputs are ``tokens``, ``state`` and ``p``, the weights.

    ``state`` is the state before the first token. Raises NotTraceableError if the program has no form in JavaScript.
    """
    writer = JavaScriptWriter(program)
    source = writer.source()
    states: list[dict[str, Any]] = []
    tree_map(lambda array: states.append(describe_state(array)), state)
    return BrowserNetwork("program", {"state": states}, [weights[name] for name in writer.weight_names], source)


def describe_state(array: NDArray[Any]) -> dict[str, Any]:
    """Return the type, the size and the values of an array; one value if all are equal."""
    values = array.ravel()
    values = values[:1] if (values == values[:1]).all() else values
    kind = "float32" if array.dtype == np.float32 else "float64"
    return {"type": kind, "size": array.size, "values": [None if v == -np.inf else v for v in values.tolist()]}


def network_of_trie(weights: Mapping[str, NDArray[Any]], order: int, ends_unseen: bool) -> BrowserNetwork:
    """Return the network of the n-grams in ``ngrams.Trie``."""
    names = list(weights)
    columns = ("begins", "words", "suffixes", "logp", "backoff")
    orders = [
        {column: names.index(f"{n}.{column}") for column in columns if f"{n}.{column}" in weights}
        for n in range(1, order + 1)
    ]
    return BrowserNetwork("trie", {"orders": orders, "endsUnseen": ends_unseen}, list(weights.values()))


def to_half(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in float16; integers keep their type. Raises OptionError for a value that does not fit."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise OptionError(f"{name} cannot be exported: a weight has values that are not finite numbers as float16")
    return half
