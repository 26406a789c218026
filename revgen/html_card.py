"""The card of a model as HTML, for notebooks: its sizes, its score, a sample and its graph."""

from __future__ import annotations

from typing import Any

from revgen.display.formatting import format_field, format_size, non_empty, pluralize
from revgen.display.html_tables import html_block, html_details, html_facts, html_quote, to_html
from revgen.generation.decoding import generate
from revgen.graphs.builder import build_graphs
from revgen.graphs.drawing import draw
from revgen.model import Model
from revgen.options import config_values, to_builtins

SAMPLE_TOKENS = 150
"""The length of a sample that is generated because the metadata has none."""


def card_html(model: Model) -> str:
    """Return the card of a model as one HTML element. A model that is not fitted has only its configuration."""
    title = f"<strong>{to_html(model.name)}</strong>"
    config = non_empty(config_values(model.config)).items()
    facts = {"configuration": ", ".join(f"{name} {format_field(value)}" for name, value in config)}
    if not (model.is_fitted and model.has_tokenizer):
        return html_block(title, " is not fitted yet", html_facts(facts))
    metadata = to_builtins(model.metadata)
    weights = sum(array.nbytes for array in model.weights.values())
    size = f"{pluralize(model.num_parameters, 'parameter')} ({format_size(weights)} in memory)"
    facts = {"size": size, "vocabulary": pluralize(len(model.tokenizer), "token"), **facts, **_results(metadata)}
    facts |= {name: format_field(metadata[name]) for name in ("data", "licence") if name in metadata}
    return html_block(
        title,
        f"<p>{to_html(metadata['description'])}</p>" if "description" in metadata else "",
        html_facts(facts),
        html_quote(_sample(model, metadata)),
        *(html_details(title, draw(graph)) for title, graph in build_graphs(model).items()),
    )


def _results(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the losses in the metadata by the unit and the text on which they were measured."""
    evaluation = metadata.get("evaluation")
    if not isinstance(evaluation, dict):
        return {}
    return {
        str(name).replace("_per_char", " per character"): format_field(value)
        for name, value in evaluation.items()
        if isinstance(value, int | float)
    }


def _sample(model: Model, metadata: dict[str, Any]) -> str:
    """Return the first sample in the metadata, or generate one. The same model always has the same sample."""
    samples = metadata.get("samples")
    if isinstance(samples, list) and samples and isinstance(samples[0], str):
        return samples[0]
    length = {} if model.generation_config else {"max_tokens": SAMPLE_TOKENS}
    return str(generate(model, None, None, {"seed": 0} | length))
