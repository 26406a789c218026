"""Beam search: the likeliest texts that a few candidates side by side find (Lowerre 1976; Sutskever et al. 2014).

    score = log p(text) / tokens ** length_penalty

The end of the document is one of the tokens. The search ends when no text that still grows can be better than those
that are complete.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from revgen.generation.constraints import Constraints, TextState
from revgen.ops import log_softmax, tree_map
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.model import Model


@dataclass(frozen=True)
class Hypothesis:
    """The beginning of a text, by its tokens."""

    ids: tuple[int, ...]
    logp: float
    state: TextState
    given: int = 0
    """How many of the tokens only write the end of the prompt again."""

    @property
    def drawn(self) -> int:
        """How many tokens are new."""
        return len(self.ids) - self.given


def search(model: Model, prompt: list[int], shift: int, rules: Constraints, begin: TextState, n: int) -> list[str]:
    """The ``n`` best different continuations of a prompt, the best first; fewer where the search finds no more."""
    settings, tokenizer = rules.settings, model.tokenizer
    beams = settings.num_beams or 1
    complete: dict[str, float] = {}
    going = [Hypothesis((), 0.0, begin)]
    tokens, state = np.array(prompt)[:, None] + shift, model.initial_state(1)
    while settings.max_tokens:
        last, state = model.next_logits(tokens, state)
        counts = None
        if rules.sampling.penalizes:
            counts = np.stack([np.bincount([*prompt, *c.ids], minlength=len(tokenizer)) for c in going])
        places = np.array([c.drawn for c in going])
        adjusted = rules.apply(last, counts, places, [c.state for c in going])
        logp = log_softmax(adjusted.astype(np.float64)) + np.array([[c.logp] for c in going])  # (candidates, vocab)
        best = np.argsort(-logp, axis=None, kind="stable")[: 2 * beams]  # where all of half of them end, half go on
        parents: list[int] = []
        grown: list[Hypothesis] = []
        for rank, choice in enumerate(best.tolist()):
            parent, token = divmod(choice, len(tokenizer))
            if np.isneginf(logp[parent, token]):
                break
            earlier = going[parent]
            after, whole = rules.advance(earlier.state, token)
            given = earlier.given + rules.rewrites_prompt(earlier.state, token)
            candidate = Hypothesis((*earlier.ids, token), float(logp[parent, token]), after, given)
            written, cut = _written(candidate, rules, tokenizer, len(begin.pending))
            if cut or whole or token == tokenizer.eos_id or candidate.drawn == settings.max_tokens:
                if rank < beams:
                    reached = score(candidate.logp, len(candidate.ids), settings.length_penalty)
                    complete[written] = max(reached, complete.get(written, -np.inf))
            elif len(grown) < beams:
                parents.append(parent)
                grown.append(candidate)
        if not grown:
            break
        # What is likeliest now and stays so is at its best when it is as long, or as short, as it can be.
        length = settings.max_tokens + grown[0].given if settings.length_penalty > 0 else len(grown[0].ids) + 1
        reachable = score(grown[0].logp, length, settings.length_penalty)
        if sum(reached >= reachable for reached in complete.values()) >= n:
            break
        going, rows = grown, np.array(parents)
        state = tree_map(operator.itemgetter(rows), state)
        tokens = np.array([[candidate.ids[-1] for candidate in going]]) + shift
    return sorted(complete, key=lambda written: -complete[written])[:n] or [""]


def score(logp: float, tokens: int, length_penalty: float) -> float:
    """Return what orders texts as ``logp / tokens ** length_penalty`` does, at any penalty: -log of its negative."""
    return math.inf if logp >= 0 else length_penalty * math.log(tokens) - math.log(-logp)


def _written(candidate: Hypothesis, rules: Constraints, tokenizer: Tokenizer, skip: int) -> tuple[str, bool]:
    """The text of a candidate after its first ``skip`` characters, up to the first stop string, and whether there is
    one."""
    written = tokenizer.decode(candidate.ids)[skip:]
    least, stops = rules.settings.min_tokens, rules.settings.stops
    if not stops or candidate.drawn <= least:
        return written, False
    begin = max(0, len(tokenizer.decode(candidate.ids[: candidate.given + least])) - skip)
    found = [at for at in (written.find(stop, begin) for stop in stops) if at >= 0]
    return (written[: min(found)], True) if found else (written, False)
