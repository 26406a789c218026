"""The teacher of the models that are distilled: a mixture of counts and a network, with equal weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import revgen


def make_teacher(recipe: Mapping[str, Any], texts: revgen.Corpus, out: Path, directory: Path) -> Any:
    """Return the teacher of a recipe, a table of ``pretrain.toml``, which is kept in a directory.

    Its network was trained on the texts, and is in ``out``. The gate of the counts is fitted to the texts, whose parts
    are predicted by the counts of the other ones.
    """
    if (directory / "config.json").exists():
        return revgen.load(directory)
    network = revgen.load(out / recipe["network"])
    models = [revgen.create(recipe["counts"], tokenizer=network.tokenizer, order=order) for order in recipe["orders"]]
    for model in models:
        model.fit(texts, progress=False)
    counts = revgen.mix(models, gated=True)
    counts.fit(texts, folds=8, epochs=3, progress=False)
    teacher = revgen.mix([counts, network])
    teacher.save(directory)
    return teacher
