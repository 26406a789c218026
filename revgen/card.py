"""The model card: what a person should know of a model, from what the model knows of itself.

On top stands the metadata that the Hugging Face Hub reads, in its conventions: library, task, tags, licence, language,
datasets, and the evaluation as a ``model-index``.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from revgen.files import to_json
from revgen.options import plain
from revgen.svg_chart import draw

if TYPE_CHECKING:
    from revgen.history import History
    from revgen.model import Model

HISTORY = "history.svg"
CURVES = {
    "train_loss": "training loss, nats per token",
    "nats_per_char": "held-out text, nats per character",
}
"""What ``metadata["history"]`` holds of every epoch, and what the picture says it is."""

LICENCE = re.compile(
    r"mit|apache-2\.0|artistic-2\.0|bsd(-[23]-clause)?|bsl-1\.0|isc|mpl-2\.0|ms-pl|ncsa|ofl-1\.1|unlicense|wtfpl|zlib"
    r"|a?gpl-3\.0|gpl-2\.0|lgpl-2\.1|lgpl-3\.0|gfdl|epl-2\.0|eupl-1\.2|odbl|odc-by|pddl|unknown"
    r"|cc0-1\.0|cc-by-2\.[05]|cc-by(-sa|-nc|-nc-nd|-nc-sa)?-3\.0|cc-by(-nc)?(-sa|-nd)?-4\.0"
)
"""The Hub's names of common licences; any other licence is ``other`` there, with its name beside it."""

AMBIGUOUS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none")
"""Words that YAML reads as something else than text."""


def card(model: Model, *, load_as: str | None = None, samples: Sequence[str] = (), picture: str | None = None) -> str:
    """The card of a model as Markdown.

    ``load_as`` is the name that it is loaded by, ``samples`` are texts of it, beside those in its metadata, ``picture``
    is the file with the history of training that lies next to the card.
    """
    known = plain(model.metadata)
    described = f"A {model.level}-level {model.architecture} language model, trained with revgen."
    parts = [
        "\n".join(["---", *_yaml(_head(model)), "---"]),
        f"# {model.name}",
        str(known.get("description", described)),
        f"{model.num_parameters:,} parameters, a vocabulary of {len(model.tokenizer):,} tokens.",
        "```python\nimport revgen\n\n"
        f"model = revgen.load({_quoted(load_as or known.get('load_as') or 'path/to/this/directory')})\n"
        'print(model.generate("the ", temperature=0.7))\n```',
    ]
    if package := model.package:
        parts.append(f"It needs the package `{package}`: `pip install {package}`.")
    configuration = {name: value for name, value in dataclasses.asdict(model.config).items() if value is not None}
    parts += ["## Configuration", _shown(configuration)]
    for title, key in (("Data", "data"), ("Training", "training"), ("Evaluation", "evaluation")):
        if key in known:
            parts += [f"## {title}", _shown(known[key])]
        if key == "training" and picture:
            parts.append(f"![The loss after each epoch]({picture})")
    texts = known["samples"] if isinstance(known.get("samples"), list) else []
    if drawn := [*texts, *samples]:
        parts += ["## Samples", *("> " + str(text).replace("\n", "\n> ") for text in drawn)]
    parts += ["## Without revgen", *_without_revgen(model)]
    text = "\n\n".join(parts) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")  # what UTF-8 cannot spell has no place in a file


def history_figures(history: History) -> dict[str, list[float]]:
    """What a model remembers of its training for the picture: a list with the figures of all epochs, by name."""
    columns = {name: [getattr(epoch, name) for epoch in history] for name in CURVES}
    return {n: [float(f"{v:.5g}") for v in values] for n, values in columns.items() if None not in values}


def history_picture(model: Model) -> str | None:
    """The loss after each epoch as SVG; None where fewer than two epochs are known."""
    history = plain(model.metadata).get("history")
    curves = {
        title: values
        for name, title in CURVES.items()
        if isinstance(history, dict)
        and isinstance(values := history.get(name), list)
        and len(values) > 1
        and all(map(_is_figure, values))
    }
    return draw(curves, "epoch") if curves else None


# The metadata --------------------------------------------------------------------------------


def _head(model: Model) -> dict[str, Any]:
    known = plain(model.metadata)
    head: dict[str, Any] = {
        "library_name": "revgen",
        "pipeline_tag": "text-generation",
        "tags": [model.architecture, model.level],
    }
    if isinstance(licence := known.get("licence"), str):
        name = licence.lower().replace(" ", "-")
        head |= {"license": name} if LICENCE.fullmatch(name) else {"license": "other", "license_name": name}
    for key, form in (("language", r"[a-z]{2,3}"), ("datasets", r"[\w.-]+(/[\w.-]+)?")):
        if values := [value for value in _listed(known.get(key)) if re.fullmatch(form, value, re.ASCII)]:
            head[key] = values if len(values) > 1 or key == "datasets" else values[0]
    if results := _results(known.get("evaluation"), head.get("datasets", ["text"])[0]):
        head["model-index"] = [{"name": model.name, "results": results}]
    return head


def _results(evaluation: Any, dataset: str) -> list[dict[str, Any]]:
    """The evaluation as the Hub takes it; ``"nats_per_char on shakespeare"`` is a result on another text."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for key, value in evaluation.items() if isinstance(evaluation, dict) else ():
        if _is_figure(value):
            kind, _, text = key.partition(" on ")
            metric = {"type": kind, "value": round(value, 5), "name": kind.replace("_", " ")}
            metrics.setdefault(text, []).append(metric)
    return [
        {
            "task": {"type": "text-generation", "name": "Text Generation"},
            "dataset": {"type": dataset, "name": text or "held-out text"} | ({"split": text} if text else {}),
            "metrics": found,
        }
        for text, found in metrics.items()
    ]


def _listed(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _yaml(content: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping as lines of YAML."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _yaml(value, indent + "  ")
        elif isinstance(value, list) and isinstance(value[0], dict):
            yield f"{indent}{key}:"
            for item in value:
                first, *rest = _yaml(item, indent + "  ")
                yield f"{indent}- {first.lstrip()}"
                yield from rest
        else:
            shown = f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)
            yield f"{indent}{key}: {shown}"


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w/.-]*", value, re.ASCII)
    return str(value) if plain and value.lower() not in AMBIGUOUS else _quoted(value)


def _quoted(value: Any) -> str:
    """A value as JSON, which is YAML and Python too."""
    if isinstance(value, str):
        value = "".join(c if c.isprintable() else " " for c in value)
    return to_json(value, ensure_ascii=False, default=str)


# The weights ---------------------------------------------------------------------------------


def _without_revgen(model: Model) -> Iterator[str]:
    """How the files are read with safetensors alone, and what is computed from them."""
    yield "The files can be read with [safetensors](https://huggingface.co/docs/safetensors) alone:"
    if model.tokenizer.file.endswith(".json"):
        read = f'tokens = json.loads(Path("{model.tokenizer.file}").read_text("utf-8"))["tokens"]  # by id'
        yield (
            "```python\nimport json\nfrom pathlib import Path\n\nfrom safetensors.numpy import load_file\n\n"
            f'weights = load_file("model.safetensors")  # arrays by name\n{read}\n```'
        )
    else:
        yield (
            "```python\nfrom safetensors.numpy import load_file\n\n"
            'weights = load_file("model.safetensors")  # arrays by name\n```'
        )
        yield f"`{model.tokenizer.file}` is a model of SentencePiece."
    yield "The ids 0, 1 and 2 are the start of a document, its end, and what is unknown."
    yield "\n".join(["| array | shape |", "|---|---|", *_arrays(model)])
    yield "What is computed from them (vectors are rows, and a state begins as zeros):"
    if any(name.endswith(".scale") for name in model.weights):
        yield (
            "`norm(x)` is `(x - mean) / sqrt(variance + 1e-5) * scale + shift`, over the values of a vector, with the "
            "`scale` and `shift` of its place: before layer i those of `norms.i`."
        )
    for text in dict.fromkeys(text for kind in model.explained_by for text in _documentation(kind)):
        yield f"```text\n{text.replace('```', '')}\n```"


def _arrays(model: Model) -> Iterator[str]:
    """A row for each array; those that differ by a number in their names share one."""
    numbers: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, array in sorted(model.weights.items()):
        number = re.search(r"\d+", name)
        form = name.replace(number[0], "\0", 1) if number else name
        numbers.setdefault((form, array.shape), []).append(number[0] if number else "")
    for (form, shape), found in numbers.items():
        shown = form.replace("\0", found[0] if len(found) == 1 else f"{{{','.join(found)}}}")
        yield f"| `{shown}` | {' × '.join(map(str, shape))} |"


def _documentation(kind: type) -> Iterator[str]:
    """What a class and, if it is one of this library, its file say of themselves, where that is an equation."""
    file = inspect.getdoc(sys.modules[kind.__module__]) if kind.__module__.startswith("revgen.") else None
    yield from (text for text in (file, inspect.cleandoc(kind.__doc__ or "")) if text and " = " in text)


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    rows = [f"| {name} | {_figure(item)} |" for name, item in value.items() if item not in (None, [], {})]
    return "\n".join(["| | |", "|---|---|", *rows])


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
