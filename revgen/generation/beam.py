"""Beam search: find the most likely texts with a few hypotheses (Lowerre 1976; Sutskever et al. 2014).

    score = log p(text) / tokens ** length_penalty

The end of the document is one of the tokens. The search stops when no unfinished text can become better than the
complete ones.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from revgen.generation.batch import prompt_end
from revgen.generation.constraints import Constraints, TextState, TokenHistory
from revgen.generation.filters import Floats, apply_filters
from revgen.generation.sentences import SentenceStop
from revgen.generation.streamer import find_end
from revgen.ops import log_softmax, tree_map
from revgen.tokenizers import Tokenizer

if TYPE_CHECKING:
    from revgen.model import Model


@dataclass(frozen=True)
class Hypothesis:
    """The beginning of a continuation."""

    ids: tuple[int, ...]
    logp: float
    state: TextState
    prompt_tokens: int = 0
    """How many of the tokens only generate the end of the prompt again."""

    @property
    def position(self) -> int:
        """The number of tokens that are counted."""
        return len(self.ids) - self.prompt_tokens


def search(
    model: Model, prompt: list[int], label_offset: int, constraints: Constraints, start: TextState, n: int
) -> list[str]:
    """Return the ``n`` best different continuations of a prompt, the best first; fewer if the search finds no more."""
    beams = BeamSearch(model.tokenizer, constraints, prompt, start, n)
    tokens, state = np.array(prompt)[:, None] + label_offset, model.initial_state(1)
    while constraints.config.max_tokens:
        logits, state = model.next_logits(tokens, state)
        parents = beams.extend(logits)
        if not parents or beams.cannot_improve():
            break
        state = tree_map(operator.itemgetter(np.array(parents)), state)
        tokens = np.array([[hypothesis.ids[-1] for hypothesis in beams.hypotheses]]) + label_offset
    return beams.best()


class BeamSearch:
    """The hypotheses of a search, the most likely first, and the scores of the ``n`` best complete texts."""

    def __init__(
        self, tokenizer: Tokenizer, constraints: Constraints, prompt: list[int], start: TextState, n: int
    ) -> None:
        self.n = n
        self.tokenizer = tokenizer
        self.constraints = constraints
        self.config = constraints.config
        self.num_beams = self.config.num_beams or 1
        self.prompt = prompt
        self.skip = len(start.pending)
        self.context = prompt_end(tokenizer, prompt, start)
        self.hypotheses = [Hypothesis((), 0.0, start)]
        self.complete: dict[str, float] = {}

    def extend(self, logits: Floats) -> list[int]:
        """Extend the hypotheses by one token, given its logits (hypotheses, vocab).

        Returns the index of the parent of each new hypothesis.
        """
        parents: list[int] = []
        extended: list[Hypothesis] = []
        for rank, (parent, hypothesis, guide_is_done) in enumerate(self._candidates(logits)):
            text, has_stopped = self._text(hypothesis)
            is_last = hypothesis.ids[-1] == self.tokenizer.eos_id or hypothesis.position == self.config.max_tokens
            if has_stopped or guide_is_done or is_last:
                if rank < self.num_beams:
                    reached = score(hypothesis.logp, len(hypothesis.ids), self.config.length_penalty)
                    self.complete[text] = max(reached, self.complete.get(text, -np.inf))
            elif len(extended) < self.num_beams:
                parents.append(parent)
                extended.append(hypothesis)
        if extended:
            self.hypotheses = extended
        self.complete = {text: self.complete[text] for text in self._best_complete()}  # others would fill the memory
        return parents

    def _candidates(self, logits: Floats) -> Iterator[tuple[int, Hypothesis, bool]]:
        """Yield (parent, hypothesis, whether its guide is done) for the most likely hypotheses, twice ``num_beams``.

        If half of them are complete texts, the other half still fills the beams.
        """
        logp = self._logprobs(logits)
        best = np.argsort(-logp, axis=None, kind="stable")[: 2 * self.num_beams]
        for choice in best.tolist():
            parent, token = divmod(choice, len(self.tokenizer))
            if np.isneginf(logp[parent, token]):
                return
            old = self.hypotheses[parent]
            state, is_done = self.constraints.next_state(old.state, token)
            prompt_tokens = old.prompt_tokens + self.constraints.is_part_of_prompt(old.state, token)
            yield parent, Hypothesis((*old.ids, token), float(logp[parent, token]), state, prompt_tokens), is_done

    def _logprobs(self, logits: Floats) -> Any:
        """Return the log-probability of each hypothesis with each next token, (hypotheses, vocab)."""
        constraints, hypotheses = self.constraints, self.hypotheses
        history = None
        if constraints.needs_tokens:
            history = TokenHistory(([*self.prompt, *h.ids] for h in hypotheses), len(self.tokenizer))
        positions = np.array([h.position for h in hypotheses])
        context = constraints.context(positions, history, np.arange(len(hypotheses)))
        logits = constraints.apply(logits, context, [h.state for h in hypotheses])
        logits = apply_filters(constraints.filters, logits, context)
        return log_softmax(logits.astype(np.float64)) + np.array([[h.logp] for h in hypotheses])

    def _text(self, hypothesis: Hypothesis) -> tuple[str, bool]:
        """Return the text after the prompt, and whether it has stopped: at a stop string or the end of a sentence."""
        ids, config = hypothesis.ids, self.config
        text = self.tokenizer.decode(ids)[self.skip :]
        if not (config.stops or config.stop_at_sentence) or hypothesis.position <= config.min_tokens:
            return text, False
        start = max(0, len(self.tokenizer.decode(ids[: hypothesis.prompt_tokens + config.min_tokens])) - self.skip)
        is_final = ids[-1] == self.tokenizer.eos_id or hypothesis.position == config.max_tokens
        sentences = SentenceStop(self.context, start) if config.stop_at_sentence else None
        end = find_end(text, config.stops, sentences, start, is_final=is_final)
        return (text, False) if end is None else (text[:end], True)

    def cannot_improve(self) -> bool:
        """Return whether ``n`` complete texts are at least as good as any hypothesis can become.

        At best the most likely hypothesis keeps its probability, and has the length that the penalty prefers.
        """
        first, penalty = self.hypotheses[0], self.config.length_penalty
        length = self.config.max_tokens + first.prompt_tokens if penalty > 0 else len(first.ids) + 1
        bound = score(first.logp, length, penalty)
        return sum(reached >= bound for reached in self.complete.values()) >= self.n

    def best(self) -> list[str]:
        """Return the complete texts with the highest scores; an empty text if there are none."""
        return self._best_complete() or [""]

    def _best_complete(self) -> list[str]:
        return sorted(self.complete, key=lambda text: -self.complete[text])[: self.n]


def score(logp: float, tokens: int, length_penalty: float) -> float:
    """Return a number that orders texts by ``logp / tokens ** length_penalty``, and is finite for any penalty.

    It is minus the logarithm of the negative quotient.
    """
    return math.inf if logp >= 0 else length_penalty * math.log(tokens) - math.log(-logp)
