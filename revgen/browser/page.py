"""The page: one HTML file that holds a model and the code that runs it, or that uses the models of a server."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from numpy.typing import NDArray

from revgen.browser.network import BrowserNetwork, to_half
from revgen.browser.vocabulary import describe_tokenizer
from revgen.display.html_tables import escape_text
from revgen.errors import CheckpointError
from revgen.files import to_json, write_atomically
from revgen.generation.config import DEFAULTS
from revgen.generation.constraints import token_id
from revgen.model import Model
from revgen.options import to_builtins
from revgen.version import __version__

ENGINE_FILES = ("tokenizers.js", "products.js", "networks.js", "sampler.js", "engine.js", "sentences.js")
PAGE_FILES = ("page_view.js", "page_fields.js", "page.js")
OFFLINE = "The model runs in this page. Nothing you type leaves it, and it works without a network."
SERVER = 'The models run on this server. Programs reach them by the <a href="docs">OpenAI protocol</a>.'
MAX_NUMBER = 1e15
"""Larger numbers in the metadata are not shown."""
TEMPERATURE = 0.7
"""The temperature that the page suggests for a model without a default."""
PAGE_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "max_tokens", "min_tokens", "stop_at_sentence", "seed")
"""The options of ``generate`` that the page has, with controls or with the values of the model only."""


def write_page(model: Model, network: BrowserNetwork, path: Path, title: str | None = None) -> Path:
    """Write a model as one HTML file, which makes no requests, and return its path.

    ``network`` computes the logits of the model; ``title`` is the name of the model by default. Raises OptionError for
    a tokenizer that has no version in JavaScript and for weights that do not fit into float16, and CheckpointError if
    the file cannot be written.
    """
    content = make_page(model, network, title).encode()
    try:
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointError(f"{path}: could not write the page: {error.strerror or error}") from error
    return path


def make_page(model: Model, network: BrowserNetwork, title: str | None = None) -> str:
    """Return the HTML of a page with a model. Its security policy allows its scripts and style, and nothing else."""
    engine = "\n".join(
        [*map(read_file, ENGINE_FILES), make_script(model, network, title), read_file("page_offline.js")]
    )
    return fill_page(title or model.name, engine, "script-src 'wasm-unsafe-eval'", OFFLINE, "")


def make_server_page() -> str:
    """Return the HTML of a page that uses the models of the server that sends it."""
    dialog = read_file("key_dialog.html") + "\n\n"
    models = "\n".join(map(read_file, ("sentences.js", "page_server.js")))
    return fill_page("revgen", models, "connect-src 'self'; script-src", SERVER, dialog)


def fill_page(title: str, models: str, policy: str, footer: str, dialog: str) -> str:
    """Return the HTML of a page; the script ``models`` and a part of the security policy are for its models."""
    ui = "\n".join(map(read_file, PAGE_FILES))
    style = read_file("page.css")
    scripts = f"'sha256-{content_hash(models)}' 'sha256-{content_hash(ui)}'"
    policy = (
        f"default-src 'none'; {policy} {scripts}; style-src 'sha256-{content_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(read_file("page.html")).substitute(
        title=escape_text(title),
        policy=escape_text(policy),
        style=style,
        models=models,
        ui=ui,
        footer=footer,
        dialog=dialog,
    )


def read_file(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("revgen.browser").joinpath(name).read_text("utf-8").strip()


def content_hash(text: str) -> str:
    """Return the SHA-256 of a script or a style, as a security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def make_script(model: Model, network: BrowserNetwork, title: str | None = None) -> str:
    """Return the script that defines ``MODEL``."""
    arrays: list[NDArray[Any]] = []
    programs: list[str] = []
    description = describe_model(model) | describe_sampling(model) | {"network": network.describe(arrays, programs)}
    description["name"] = title or model.name
    halves = [to_half(model.name, array) for array in arrays]
    description["arrays"] = [[str(array.dtype), array.size] for array in halves]
    data = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in halves)
    description["info"]["weights_bytes"] = len(data)
    return "\n".join(
        [
            f"const MODEL = {to_script(description)};",
            f'MODEL.data = "{base64.b64encode(data).decode()}";',
            f"MODEL.programs = [{', '.join(programs)}];",
        ]
    )


def describe_model(model: Model) -> dict[str, Any]:
    """Return what the page shows, as plain values. Raises OptionError for invalid defaults of the model."""
    model.check_generation_config()
    own = model.generation_config
    defaults = {name: own.get(name, value) for name, value in DEFAULTS.items() if name in PAGE_OPTIONS}
    return {
        "name": model.name,
        "architecture": model.architecture,
        "level": model.level,
        "labels": list(model.labels),
        "prompt": own.get("prompt", ""),
        "defaults": defaults | {"temperature": own.get("temperature", TEMPERATURE)},
        "info": describe_metadata(model),
    }


def describe_sampling(model: Model) -> dict[str, Any]:
    """Return what the sampler in the page needs, as plain values. It never samples default banned tokens."""
    tokenizer, banned = model.tokenizer, model.generation_config.get("banned_tokens") or ()
    suppressed = {*model.suppressed_tokens, *(token_id("banned_tokens", token, tokenizer) for token in banned)}
    return {"suppressed": sorted(suppressed), "tokenizer": describe_tokenizer(tokenizer)}


def describe_metadata(model: Model) -> dict[str, Any]:
    """Return facts about the model for its readers. The metadata may come from anywhere, so their types are checked."""
    metadata = to_builtins(model.metadata)
    training, evaluation = (
        value if isinstance(value := metadata.get(name), dict) else {} for name in ("training", "evaluation")
    )
    texts = {name: metadata.get(name) for name in ("description", "data", "licence", "language")}
    numbers: dict[str, Any] = {"epochs": training.get("epochs"), "seconds": training.get("seconds")}
    numbers["bits_per_char"] = evaluation.get("bits_per_char")
    samples = metadata.get("samples")
    return {
        "parameters": model.num_parameters,
        "vocabulary": len(model.tokenizer),
        "version": __version__,
        **{name: text for name, text in texts.items() if isinstance(text, str)},
        **{
            name: number
            for name, number in numbers.items()
            if type(number) in (int, float) and abs(number) < MAX_NUMBER
        },
        "samples": [text for text in samples if isinstance(text, str)] if isinstance(samples, list) else [],
    }


def to_script(value: Any) -> str:
    """Return a value as JSON that cannot end the script that contains it."""
    return to_json(value).replace("<", "\\u003c")
