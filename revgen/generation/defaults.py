"""The defaults of a model for the options of ``generate``: ``Model.generation_config``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from revgen.errors import OptionError
from revgen.generation.config import DEFAULTS, GenerationConfig
from revgen.generation.text_guides import check_max_copied_chars
from revgen.generation_file import OPTIONS
from revgen.options import as_float, check, is_int
from revgen.registry import unknown_name_message

if TYPE_CHECKING:
    from revgen.model import Model

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
"""Options that do not apply to beam search, nor at the temperature 0."""
BEAMS = ("num_beams", "length_penalty")
INDEX = ("max_copied_chars", "known_words")
"""Options that need an index of the training text."""
LENGTH = ("max_tokens", "min_tokens", "stop", "stop_at_sentence", *INDEX)
"""Options that do not apply to a text that has to match a pattern."""
MAX_PROMPT_CHARS = 10_000
MAX_DEFAULT_TOKENS = 100_000
"""The limits of defaults, which may come from an untrusted source."""
MAX_DEFAULT_BEAMS = 64


def check_defaults(model: Model) -> None:
    """Raise OptionError unless ``generation_config`` has a ``prompt`` and options of ``generate`` for this model.

    Raises CheckpointError if the options need the index of the training text, and its file is damaged.
    """
    defaults = model.generation_config
    is_mapping = isinstance(defaults, Mapping)
    check("generation_config", defaults, is_mapping, "a dictionary of a prompt and options of generate")
    options = dict(defaults)
    prompt = options.pop("prompt", "")
    is_prompt = isinstance(prompt, str) and len(prompt) <= MAX_PROMPT_CHARS
    check("prompt", prompt, is_prompt, f"a string of at most {MAX_PROMPT_CHARS:,} characters")
    for name in options:
        if name not in OPTIONS:
            raise OptionError(unknown_name_message("entry of generation_config", name, OPTIONS))
    temperature = options.get("temperature", 0)
    check("temperature", temperature, as_float(temperature) >= 0, "0 or more")
    config = GenerationConfig(**options)
    for name, limit in (("max_tokens", MAX_DEFAULT_TOKENS), ("num_beams", MAX_DEFAULT_BEAMS)):
        value = getattr(config, name)
        check(name, value, value is None or value <= limit, f"at most {limit:,} as the default of a model")
    model.label_offset(config.label)
    if model.has_index and (config.known_words or config.max_copied_chars is not None):
        check_max_copied_chars(model.text_index, config.max_copied_chars)


def resolve_prompt(model: Model, prompt: Any) -> Any:
    """Return the prompt of a call, or the prompt of the model if the call gives none."""
    return model.generation_config.get("prompt", "") if prompt is None else prompt


def add_defaults(model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call together with the defaults of the model that the call does not exclude.

    An option of the call replaces its default, also with the value None, and may exclude other defaults. Beam search
    and the temperature 0 exclude the defaults for sampling, options for sampling those for beam search, and a pattern
    or choices those for the length of a text. A pattern, choices and forced tokens exclude banned tokens. If the call
    gives ``max_tokens``, the default of ``min_tokens`` keeps its proportion to it.
    """
    defaults = {name: value for name, value in model.generation_config.items() if name not in ("prompt", *options)}
    given = {name for name, value in options.items() if value is not None}
    excluded: set[str] = set()
    if "num_beams" in given or as_float(options.get("temperature")) == 0:
        excluded.update(SAMPLING)
    if not given.isdisjoint(SAMPLING):
        excluded.update(BEAMS)
    if not given.isdisjoint(("regex", "choices")):
        excluded.update(LENGTH)
    if not given.isdisjoint(("regex", "choices", "forced_tokens")):
        excluded.add("banned_tokens")
    if not model.has_index or not given.isdisjoint(("guide", "forced_tokens")):
        excluded.update(INDEX)
    minimum, maximum = defaults.get("min_tokens"), model.generation_config.get("max_tokens", DEFAULTS["max_tokens"])
    if is_int(minimum, 0) and is_int(maximum, 0) and is_int(options.get("max_tokens"), 0):
        defaults["min_tokens"] = options["max_tokens"] * minimum // max(maximum, 1)
    return {name: value for name, value in defaults.items() if name not in excluded} | dict(options)
