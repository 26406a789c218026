"""Tables of the values that depend on the token and the weights alone.

Before its recurrence, the first layer of a network computes the same vectors whenever it reads the same token. They are
computed once for each token, and the program looks them up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from revgen.compiler import Operation, Program
from revgen.networks.codegen import fixed_values, input_name
from revgen.ops import tree_map

MAX_TABLE_SIZE = 1 << 22
"""The largest number of values in all tables."""
VIEWS = ("reshape", "slice", "transpose")
MAX_EVALUATIONS = 1 << 18
"""The largest number of operations that are run to fill the tables, about a second."""


def with_token_tables(program: Program, weights: Mapping[str, NDArray[Any]], num_tokens: int) -> Program:
    """Return a program that looks up vectors of the token ``tokens``; the same program if the tables would be large.

    ``weights`` are the arrays of the program's inputs ``p``.
    """
    operations = program.operations
    fixed = program.compute(fixed_values(program), weights)
    tokens = next(i for i, operation in enumerate(operations) if input_name(operation) == "tokens")
    dependent = [tokens]
    for i, operation in enumerate(operations):
        arguments = [j for j in operation.inputs if j not in fixed]
        if arguments and all(j in dependent for j in arguments):
            dependent.append(i)
    users = {j for i, operation in enumerate(operations) if i not in dependent for j in operation.inputs}
    rows: set[int] = set()  # values that are looked up already
    for i in dependent:
        if operations[i].name == "take" or (operations[i].name in VIEWS and operations[i].inputs[0] in rows):
            rows.add(i)
    tabulated = [
        i
        for i in dependent
        if i in users and i not in rows and operations[i].dtype == np.float32 and operations[i].size > 1
    ]
    size = num_tokens * sum(operations[i].size for i in tabulated)
    if size > MAX_TABLE_SIZE or num_tokens * len(dependent) > MAX_EVALUATIONS:
        return program
    tables = {i: np.empty((num_tokens, operations[i].size), np.float32) for i in tabulated}
    for token in range(num_tokens):
        array = np.full(operations[tokens].shape, token, operations[tokens].dtype)
        values = program.compute(dependent, {"tokens": array}, fixed)
        for i, table in tables.items():
            table[token] = values[i].reshape(-1)
    return _replace(program, tokens, tables)


def _replace(program: Program, tokens: int, tables: Mapping[int, NDArray[np.float32]]) -> Program:
    """Return the program with a lookup in a table instead of each of these values."""
    operations: list[Operation] = []
    position: dict[int, int] = {}

    def add(operation: Operation) -> int:
        operations.append(operation)
        return len(operations) - 1

    token_shape, kind = program.operations[tokens].shape, np.dtype(np.float32)
    for i, old in enumerate(program.operations):
        if i in tables:
            table = add(Operation("constant", (), tables[i].shape, kind, {"value": tables[i]}))
            rows = add(Operation("take", (table, position[tokens]), (*token_shape, old.size), kind))
            position[i] = add(Operation("reshape", (rows,), old.shape, kind, {"shape": old.shape}))
        else:
            position[i] = add(dataclasses.replace(old, inputs=tuple(position[j] for j in old.inputs)))
    return Program(tuple(operations), tree_map(position.__getitem__, program.outputs)).without_unused()
