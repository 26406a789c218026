"""The model directory: ``config.json``, the tokenizer, the weights as safetensors, a model card, and perhaps defaults.

``revgen.pending`` replaces its files in one step. A process that is killed at any moment leaves the previous model or
the new one, and so do two processes that save at once. A process that loads meanwhile reads one of the two.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from revgen import generation_file, schema
from revgen.card import make_card
from revgen.compact_index import TextIndex, read_index
from revgen.errors import CheckpointError, OptionError, UnknownNameError
from revgen.files import Check, FileHandle, is_rank_zero, lock, make_directory, read_file, to_json
from revgen.model import Model, Weights
from revgen.options import is_int, safe_repr
from revgen.pending import (
    CARD,
    CONFIG,
    GENERATION_CONFIG,
    INDEX,
    WEIGHTS,
    find_config,
    model_stamp,
    pending,
    read_consistently,
    read_if_valid,
    replace_model,
)
from revgen.registry import architecture_class, tokenizers
from revgen.tensors import check_header, from_dtype, parse_arrays, to_dtype
from revgen.tokenizers import Tokenizer
from revgen.version import __version__

FORMAT_VERSION = 1
DTYPES = "float32", "float16", "int8"
"""The types in which weights can be saved."""
MAX_TOKENIZER_BYTES = 64 << 20
SAVE_SECONDS = 30.0
"""How long a save waits for another process that saves into the same directory."""


# Writing


def save(model: Model, directory: Path, dtype: str = "float32", overwrite: bool = False) -> Path:
    """Write the model directory, with a card if it has none, and return its path.

    ``dtype`` is "float32", "float16" or "int8". Of several processes under ``torchrun``, only the first writes. Raises
    CheckpointError if the directory has another model and ``overwrite`` is False, if a weight is not finite in this
    type, or if a file cannot be written.
    """
    from safetensors.numpy import save as to_safetensors

    if dtype not in DTYPES:
        raise OptionError(f'dtype must be "float32", "float16" or "int8", not {dtype!r}')
    if not is_rank_zero():
        return directory
    with np.errstate(over="ignore"):
        arrays = to_dtype(model.weights, dtype)
    if non_finite := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise CheckpointError(
            f"{directory}: the model was not saved: the weight {non_finite[0]} has values that are not finite numbers "
            f"as {dtype}"
        )
    write_directory(model, directory, to_safetensors(arrays, {"format": "pt"}), dtype, overwrite=overwrite)
    return directory


def find_other_model(model: Model, directory: Path) -> str | None:
    """Return a description of the model in a directory if it is another one, or else None. Raises OSError.

    It is the same model if ``model`` was loaded from these weights or saved as them, or if it has the same name,
    configuration and tokenizer, as a model that was trained again. A missing or damaged model is no other one.
    """
    _, content = find_config(directory, read_if_valid)
    if content is None or content["weights"]["sha256"] in model.saved_hashes:
        return None
    described = configuration(model) | {"tokenizer": model.tokenizer.fingerprint}
    existing = content | {"tokenizer": content["tokenizer"]["sha256"]}
    names = ("format_version", "architecture", "level", "config", "tokenizer")
    different = [name for name in names if existing.get(name) != described[name]]
    if not different:
        return None
    differences = {
        "format_version": " in another format",
        "config": " with another configuration",
        "tokenizer": " with another vocabulary",
    }
    return f"{content['architecture']}-{content['level']}{differences.get(different[0], '')}"


def write_directory(
    model: Model,
    directory: Path,
    weights: bytes,
    dtype: str,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = True,
) -> None:
    """Write the model directory. ``weights`` is the content of the safetensors file, with values of type ``dtype``.

    It keeps the model card, except of another model, which is replaced if ``overwrite`` is True. ``extra`` holds
    further entries of config.json. Raises CheckpointError for another model that must not be replaced, and if a file
    cannot be written. If the model could not be loaded from the files, it raises CheckpointError before it writes any.
    """
    tokenizer = model.tokenizer.to_bytes()
    tokenizer_file = model.tokenizer.file
    index = model.text_index.to_bytes() if model.has_index else None
    config = configuration(model) | {
        "tokenizer": _file_entry(tokenizer_file, tokenizer) | {"tokens": len(model.tokenizer)},
        "weights": _file_entry(WEIGHTS, weights) | {"parameters": model.num_parameters, "dtype": dtype},
        "metadata": model.metadata,
        **({} if index is None else {"index": _file_entry(INDEX, index)}),
    }
    try:
        config_bytes = to_json({**(extra or {}), **config}, indent=2).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"metadata has a value that cannot be written to config.json: {error}") from None
    files = {CARD: make_card(model).encode(), GENERATION_CONFIG: generation_file.to_bytes(model)}
    files |= {WEIGHTS: weights, tokenizer_file: tokenizer, **({} if index is None else {INDEX: index})}
    _check_readable(model, directory, config_bytes, tokenizer, weights)
    try:
        make_directory(directory)
        with lock(directory, SAVE_SECONDS):
            other = find_other_model(model, directory)
            if other is not None and not overwrite:
                raise CheckpointError(f"{directory} has another model, {other}: pass overwrite=True to replace it")
            if other is None and (directory / CARD).exists():
                del files[CARD]
            if not model.generation_config and not (directory / GENERATION_CONFIG).exists():
                del files[GENERATION_CONFIG]
            replace_model(directory, files, config_bytes)
            if not model.generation_config:
                (directory / GENERATION_CONFIG).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{directory}: could not save the model: {error.strerror or error}") from error
    model.saved_hashes = model.saved_hashes | {config["weights"]["sha256"]}


def configuration(model: Model) -> dict[str, Any]:
    """Return the entries of config.json that describe the model itself, as plain values."""
    content = {
        "format_version": FORMAT_VERSION,
        "revgen_version": __version__,
        "model_type": "revgen",  # for the Auto classes of transformers
        "suppress_tokens": model.suppressed_tokens,  # transformers never samples them
        "architecture": model.architecture,
        "level": model.level,
        "package": model.package,
        "config": dataclasses.asdict(model.config),
    }
    plain_values: dict[str, Any] = json.loads(json.dumps(content, default=np.generic.item))
    return plain_values


def _check_readable(model: Model, directory: Path, config: bytes, tokenizer: bytes, weights: bytes) -> None:
    """Raise CheckpointError if the model could not be loaded from these files."""
    content = schema.parse_json(config, directory / CONFIG)
    schema.check_config(content, directory / CONFIG)
    read_back = type(model.tokenizer).from_bytes(tokenizer)
    if read_back.fingerprint != model.tokenizer.fingerprint:
        raise CheckpointError(f"{directory}: the model was not saved: its tokenizer would be different when loaded")
    _assemble(type(model), content, read_back, from_dtype(parse_arrays(directory / WEIGHTS, weights)), directory)


def _file_entry(file: str, data: bytes) -> dict[str, Any]:
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest()}


# Reading


def load_directory(directory: Path) -> Model:
    """Load the model in a directory.

    Raises CheckpointError with the name of the file if one is damaged, and UnknownNameError if the architecture, the
    cell or the tokenizer is not registered.
    """
    return read_consistently(directory, lambda: _load(directory))


def _load(directory: Path) -> Model:
    stamp = model_stamp(directory)
    config_path, content = _find_config(directory)
    architecture = content["architecture"]
    try:
        model_class = architecture_class(architecture)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{directory / CONFIG} needs {architecture!r}, which is not registered here ({error}). "
            f"{_installation_hint(content)}, or put @revgen.register_cell({architecture!r}) on its class, and load "
            "again"
        ) from None
    tokenizer = read_tokenizer(directory, content)
    path = directory / content["weights"]["file"]
    arrays = parse_arrays(path, _read(path, content["weights"]["sha256"], check=check_header))
    try:
        arrays = from_dtype(arrays)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model = _assemble(model_class, content, tokenizer, arrays, directory)
    model.saved_hashes = frozenset([content["weights"]["sha256"]])
    metadata = content.get("metadata", {})
    model.metadata = metadata if isinstance(metadata, dict) else {}
    model.weights = arrays
    if (index := content.get("index")) is not None:
        path = directory / index["file"]
        path = pending(path) if pending(path).exists() else path
        # The index may have been deleted before the model was shared, because it contains the training text.
        if path.exists():
            model._index = partial(_read_index, FileHandle(path), index["sha256"])
    path = directory / GENERATION_CONFIG
    if config_path == pending(directory / CONFIG) and pending(path).exists():
        path = pending(path)
    if path.exists():
        generation_file.read_file(model, path)
    if model_stamp(directory) != stamp:
        raise CheckpointError(f"{directory}: another process is saving into this directory")
    return model


def read_config(directory: Path) -> dict[str, Any]:
    """Return the content of the directory's config.json, or of the new one if a save was interrupted at its end.

    Raises CheckpointError if the file lacks an entry, or if an entry has a type or a size that ``schema`` does not
    allow.
    """
    return _find_config(directory)[1]


def _find_config(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Return the path and the content of the valid config.json, as ``read_config`` does."""
    path, content = find_config(directory, lambda path: _read_config(path) if path.exists() else None)
    if content is None:
        raise CheckpointError(f"{directory} is not a model directory: it has no {CONFIG}")
    return path, content


def _read_config(path: Path) -> dict[str, Any]:
    content = schema.read_json(path)
    if "format_version" not in content:
        raise CheckpointError(f"{path} is damaged, or does not belong to a revgen model: it has no format_version")
    version = content["format_version"]
    if not (is_int(version, 1) and version <= FORMAT_VERSION):
        remedy = ": upgrade revgen to read it" if is_int(version, FORMAT_VERSION + 1) else ""
        raise CheckpointError(
            f"{path} has the format version {safe_repr(version)}; revgen {__version__} reads versions up to "
            f"{FORMAT_VERSION}{remedy}"
        )
    schema.check_config(content, path)
    return content


def read_tokenizer(directory: Path, content: Mapping[str, Any]) -> Tokenizer:
    """Load the tokenizer of a model directory. ``content`` is the content of its config.json.

    Raises UnknownNameError if the tokenizer's level is not registered, and CheckpointError if its file is damaged.
    """
    entry = content["tokenizer"]
    try:
        tokenizer_class = tokenizers.get(content["level"])
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{directory / CONFIG} needs a tokenizer that is not registered here: {error}. "
            f"{_installation_hint(content)}, and load again"
        ) from None
    tokenizer: Tokenizer = tokenizer_class.from_bytes(
        _read(directory / entry["file"], entry["sha256"], MAX_TOKENIZER_BYTES)
    )
    return tokenizer


def _read_index(file: FileHandle, sha256: object) -> TextIndex:
    try:
        data = file.read_bytes(check_header)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"its hash is not the one in {CONFIG}")
        return read_index(data)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None


def _assemble(
    model_class: type[Model], content: Mapping[str, Any], tokenizer: Tokenizer, arrays: Weights, directory: Path
) -> Model:
    """Build the model of a config.json, still without weights. Raises CheckpointError if ``arrays`` do not fit it."""
    architecture, options = content["architecture"], content["config"]
    try:
        schema.check_options(model_class.Config, options)
        model = model_class(architecture, content["level"], model_class.Config(**options), tokenizer)
        model.weight_shapes()
    except Exception as error:  # an architecture or a cell may raise anything for invalid values
        reason = str(error)[:500]
        raise CheckpointError(
            f"{directory / CONFIG} has a configuration that {architecture} does not accept: {reason}"
        ) from error
    if problem := model.validate_weights(arrays):
        raise CheckpointError(f"{directory / content['weights']['file']}: {problem}")
    return model


def _installation_hint(content: Mapping[str, Any]) -> str:
    """Return how to get a part that is not registered. The package that config.json names may be malicious."""
    package = content.get("package")
    if isinstance(package, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", package):
        return f"It says that the package {package!r} provides it: install it if you trust it (pip install {package})"
    return "Import the package that provides it"


def _read(path: Path, sha256: str, max_bytes: int | None = None, check: Check | None = None) -> bytes:
    """Return the bytes of a file in a model directory, or of the new one if a save has not renamed it yet.

    ``read_file`` describes ``max_bytes`` and ``check``. Raises CheckpointError if the hash is not ``sha256``.
    """
    problem = ""
    for candidate in (pending(path), path):
        try:
            data = read_file(candidate, max_bytes, check)
        except (OSError, ValueError) as error:
            problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            continue
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
        problem = f"is damaged, or belongs to another model: its hash is not the one in {CONFIG}"
    raise CheckpointError(f"{path} {problem}")
