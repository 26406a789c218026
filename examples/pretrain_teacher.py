"""The teacher of the models that are distilled: a mixture of counts and a network, with equal weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from best_mixture import CHAINS, ORDERS

import revgen


def make_teacher(recipe: Mapping[str, Any], texts: revgen.Corpus, out: Path, directory: Path) -> Any:
    """Return the teacher of a recipe, a table of ``pretrain.toml``, which is kept in a directory.

    Its network was trained on the texts, and is in ``out``. Its counts are those of ``best_mixture.py``, whose gate is
    fitted to the texts: each part of them is predicted by the counts of the other ones.
    """
    if (directory / "config.json").exists():
        return revgen.load(directory)
    network = revgen.load(out / recipe["network"])
    options: dict[str, Any] = {"tokenizer": network.tokenizer}
    models = [
        *(revgen.create("kneser-ney-char", order=order, **options) for order in ORDERS),
        *(revgen.create("skip-ngram-char", contexts=chain, **options) for chain in CHAINS),
        revgen.create("cm-char", adapt=False, **options),
    ]
    for model in models:
        model.fit(texts, progress=False)
    counts = revgen.mix(models, gated=True)
    counts.fit(texts, folds=8, epochs=3, progress=False)
    teacher = revgen.mix([counts, network])
    teacher.save(directory)
    return teacher
