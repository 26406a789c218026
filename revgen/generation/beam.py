"""Beam search: the likeliest texts that a few candidates side by side find (Lowerre 1976; Sutskever et al. 2014).

    score = log p(text) / tokens ** length_penalty

The end of the document is one of the tokens. The search ends when no text that still grows can be better than those
that are complete.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from revgen.generation.settings import Rules
from revgen.ops import log_softmax, map_state
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.language_model import LanguageModel


@dataclass(frozen=True)
class Candidate:
    """The beginning of a text, by its tokens."""

    ids: tuple[int, ...]
    logp: float
    state: Any
    """The guide's."""


def search(model: LanguageModel, prompt: list[int], shift: int, rules: Rules, text: str, n: int) -> list[str]:
    """The ``n`` best different continuations of a prompt, the best first; fewer where the search finds no more."""
    settings, tokenizer = rules.settings, model.tokenizer
    beams = settings.beams or 1
    complete: dict[str, float] = {}
    going = [Candidate((), 0.0, rules.begin(text))]
    tokens, state = np.array(prompt)[:, None] + shift, model.initial_state(1)
    for place in range(settings.max_tokens):
        last, state = model.next_logits(tokens, state)
        counts = None
        if rules.sampling.penalizes:
            counts = np.stack([np.bincount([*prompt, *c.ids], minlength=len(tokenizer)) for c in going])
        adjusted = rules.apply(last, counts, np.full(len(going), place), [c.state for c in going])
        logp = log_softmax(adjusted.astype(np.float64)) + np.array([[c.logp] for c in going])  # (candidates, vocab)
        best = np.argsort(-logp, axis=None, kind="stable")[: 2 * beams]  # where all of half of them end, half go on
        parents: list[int] = []
        grown: list[Candidate] = []
        for rank, choice in enumerate(best.tolist()):
            parent, token = divmod(choice, len(tokenizer))
            if np.isneginf(logp[parent, token]):
                break
            guided, whole = rules.advance(going[parent].state, token)
            candidate = Candidate((*going[parent].ids, token), float(logp[parent, token]), guided)
            written, cut = _written(candidate, rules, tokenizer)
            if cut or whole or token == tokenizer.end or place + 1 == settings.max_tokens:
                if rank < beams:
                    reached = candidate.logp / len(candidate.ids) ** settings.length_penalty
                    complete[written] = max(reached, complete.get(written, -np.inf))
            elif len(grown) < beams:
                parents.append(parent)
                grown.append(candidate)
        if not grown:
            break
        # What is likeliest now and stays so is at its best when it is as long, or as short, as it can be.
        length = settings.max_tokens if settings.length_penalty > 0 else place + 2
        if sum(reached >= grown[0].logp / length**settings.length_penalty for reached in complete.values()) >= n:
            break
        going, rows = grown, np.array(parents)
        state = map_state(operator.itemgetter(rows), state)
        tokens = np.array([[candidate.ids[-1] for candidate in going]]) + shift
    return sorted(complete, key=lambda written: -complete[written])[:n] or [""]


def _written(candidate: Candidate, rules: Rules, tokenizer: Tokenizer) -> tuple[str, bool]:
    """The text of a candidate up to the first stop string, and whether there is one."""
    written = tokenizer.decode(candidate.ids)
    least, stops = rules.settings.min_tokens, rules.settings.stops
    if not stops or len(candidate.ids) <= least:
        return written, False
    begin = len(tokenizer.decode(candidate.ids[:least]))
    found = [at for at in (written.find(stop, begin) for stop in stops) if at >= 0]
    return (written[: min(found)], True) if found else (written, False)
