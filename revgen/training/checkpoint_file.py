"""The file of a checkpoint: tensors as safetensors, and values as JSON in its header, with a hash of all its bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from safetensors import SafetensorError
from torch import Tensor

from revgen.arguments import matches_annotation
from revgen.files import read_file, write_atomically
from revgen.history import EpochMetrics
from revgen.options import is_int, safe_repr, to_builtins
from revgen.tensors import check_header
from revgen.training.run import EpochProgress

FORMAT_VERSION = 2
"""Files of version 1, which version 0.1 of revgen wrote, have no hash and are refused."""
EMPTY_HASH = "0" * 64
"""The hash of a file is computed with this value instead of the hash."""


@dataclass(frozen=True)
class CheckpointValues:
    """The values in a checkpoint, and their types."""

    model: str
    configuration: dict[str, Any]
    tokenizer: str
    text: int
    recipe: dict[str, Any]
    budget: dict[str, int | float | None]
    fine_tunes: bool
    epochs_done: int
    rate: float
    rollbacks: int
    steps: int
    loss: float | None
    lowest: float
    cursor: EpochProgress
    states: list[Any]
    seconds: float
    averaged: int
    notes: list[str]
    history: list[EpochMetrics]
    precision: dict[str, Any] | None
    compiled: bool
    format_version: int


def write_checkpoint(path: Path, values: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint. Raises OSError."""
    from safetensors.torch import save

    state = json.dumps(to_builtins({**values, "format_version": FORMAT_VERSION}))
    data = save(tensors, {"state": state, "sha256": EMPTY_HASH})
    write_atomically(path, _replace_hash(data, EMPTY_HASH, hashlib.sha256(data).hexdigest()))


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the values and the tensors of a checkpoint. Raises ValueError if it is damaged, and OSError."""
    from safetensors.torch import load

    data = read_file(path, check=check_header)
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if "sha256" not in metadata:
            raise ValueError("it has no hash; a checkpoint of version 0.1 cannot be resumed")
        sha256 = str(metadata["sha256"])
        if hashlib.sha256(_replace_hash(data, sha256, EMPTY_HASH)).hexdigest() != sha256:
            raise ValueError("its hash is not the one that it names")
        values = json.loads(metadata["state"])
        _check("its state", values, CheckpointValues)
        return values, load(data)
    except KeyError as error:
        raise ValueError(f"it has no {safe_repr(error.args[0])}") from None
    except (SafetensorError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _replace_hash(data: bytes, old: str, new: str) -> bytes:
    return data.replace(f'"sha256":"{old}"'.encode(), f'"sha256":"{new}"'.encode(), 1)


def _check(name: str, value: Any, hint: Any) -> None:
    """Raise ValueError unless a value of a checkpoint has its type."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is not an object")
        hints = get_type_hints(hint)
        for entry in dataclasses.fields(hint):
            if entry.name in value:
                _check(entry.name, value[entry.name], hints[entry.name])
            elif entry.default is dataclasses.MISSING:
                raise ValueError(f"{name} has no {entry.name}")
    elif isinstance(value, list) and get_args(hint) and dataclasses.is_dataclass(get_args(hint)[0]):
        for item in value:
            _check(name, item, get_args(hint)[0])
    elif not matches_annotation(value, hint) or (hint is int and not is_int(value, 0)):
        raise ValueError(f"{name} cannot be {safe_repr(value)}")
