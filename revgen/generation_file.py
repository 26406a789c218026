"""``generation_config.json``: the defaults of a model for the options of ``generate``, next to its weights.

The names are those of ``transformers``, which reads the file too: ``do_sample``, ``max_new_tokens`` and so on. Options
that only revgen has keep their names. Entries that revgen does not know are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from revgen import schema
from revgen.errors import CheckpointError, OptionError
from revgen.files import to_json
from revgen.model import Model

OPTIONS = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty", "banned_tokens"),
    *("max_tokens", "min_tokens", "stop", "stop_at_sentence", "max_copied_chars", "known_words"),
    *("num_beams", "length_penalty", "prompt", "label"),
)
"""The entries of ``Model.generation_config``: a prompt, and options of ``generate``."""
ENTRY_NAMES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}
"""The options that have another name in the file."""
DISABLED = {"top_k": 0, "num_beams": 1}
"""Values in the file of options that a model has no default for. Without them, ``transformers`` keeps 50 tokens."""


def to_entries(model: Model) -> dict[str, Any]:
    """Return the content of the file. Raises OptionError for other options."""
    model.check_generation_config()
    defaults = {name: value for name, value in model.generation_config.items() if value is not None}
    is_greedy = defaults.get("temperature") == 0
    if is_greedy:
        del defaults["temperature"]
    sampling = {"do_sample": not is_greedy and defaults.get("num_beams") is None}
    return sampling | DISABLED | {ENTRY_NAMES.get(name, name): value for name, value in defaults.items()}


def from_entries(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults in the content of the file, which may come from ``transformers``."""
    named = {name: entries.get(ENTRY_NAMES.get(name, name)) for name in OPTIONS}
    defaults = {name: value for name, value in named.items() if value is not None and value != DISABLED.get(name)}
    if entries.get("do_sample") is False and "num_beams" not in defaults:
        defaults["temperature"] = 0.0
    return defaults


def to_bytes(model: Model) -> bytes:
    """Return the file of a model. Raises OptionError for invalid defaults."""
    return to_json(to_entries(model), indent=2).encode()


def read_file(model: Model, path: Path) -> None:
    """Set the defaults of a model by a file. Raises CheckpointError."""
    model.generation_config = from_entries(schema.read_json(path))
    try:
        model.check_generation_config()
    except OptionError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
