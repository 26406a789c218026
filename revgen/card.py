"""The model card: what a person should know of a model, from what the model knows of itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel


def card(model: LanguageModel) -> str:
    """The card of a model as Markdown, with the metadata that the Hugging Face Hub reads on top."""
    known = model.metadata
    head = ["library_name: revgen", "pipeline_tag: text-generation", f"tags: [{model.architecture}, {model.level}]"]
    if "licence" in known:
        head.append(f"license: {str(known['licence']).lower()}")
    if "language" in known:
        head.append(f"language: {known['language']}")
    plain = f"A {model.level}-level {model.architecture} language model, trained with revgen."
    parts = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {model.name}",
        str(known.get("description", plain)),
        f"{model.num_parameters:,} parameters, a vocabulary of {len(model.tokenizer):,} tokens.",
        "```python\nimport revgen\n\n"
        f'model = revgen.load("{known.get("load_as", "path/to/this/directory")}")\n'
        'print(model.generate("the ", temperature=0.7))\n```',
    ]
    configuration = {name: value for name, value in dataclasses.asdict(model.config).items() if value is not None}
    parts += ["## Configuration", _shown(configuration)]
    for title, key in (("Data", "data"), ("Training", "training"), ("Evaluation", "evaluation")):
        if key in known:
            parts += [f"## {title}", _shown(known[key])]
    if isinstance(samples := known.get("samples"), list):
        parts += ["## Samples", *("> " + str(text).replace("\n", "\n> ") for text in samples)]
    return "\n\n".join(parts) + "\n"


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
