"""Dynamic evaluation: a network takes a step of gradient descent after each segment of the document that it reads.

A network learns the style and the vocabulary of a document as it learned its training text. After each segment of s
tokens, with the loss L of their predictions:

    θ ← θ - η / (RMS + ε) ∇L(θ)          with ∇L scaled to a norm of at most c
    θ ← θ + λ (θ_0 - θ)                  decay towards the trained weights θ_0

RMS is the root mean square of the gradient of each weight: a weight whose gradients are always large learns slowly. It
is measured on text that the model itself generates, once, so the training text is not needed. The prediction of a token
uses weights that were updated on earlier segments only.
(Krause, Kahembwe, Murray & Renals 2018, *Dynamic evaluation of neural sequence models*.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from revgen.architectures.out_of_fold import bounded_logprobs
from revgen.architectures.wrapper import Wrapper, WrapperConfig
from revgen.derived import derived
from revgen.language_model import LanguageModel
from revgen.options import as_float, check, check_fractions, is_int
from revgen.registry import register_model
from revgen.sequences import Adaptation, score_sequences

if TYPE_CHECKING:
    from revgen.networks.dynamic import DynamicNetwork

MAX_SEGMENT_SIZE = 4096
NUM_SAMPLES, SAMPLE_SIZE = 32, 101
"""The number of generated texts on which the gradients are measured, and their length in tokens."""


@dataclass(frozen=True)
class DynamicEvaluationConfig(WrapperConfig):
    """The wrapped model and the settings of gradient descent.

    ``learning_rate`` is η, ``segment_size`` s, ``max_norm`` c and ``decay`` λ. ε is ``floor`` times the mean of RMS.
    """

    learning_rate: float = 1e-3
    segment_size: int = 25
    max_norm: float = 1.0
    decay: float = 0.003
    floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("learning_rate", "max_norm", "floor"):
            value = as_float(getattr(self, name))
            check(name, getattr(self, name), 0 < value < np.inf, "a positive number")
        is_size = is_int(self.segment_size, 1) and as_float(self.segment_size) <= MAX_SEGMENT_SIZE
        check("segment_size", self.segment_size, is_size, f"a whole number from 1 to {MAX_SEGMENT_SIZE:,}")
        check_fractions(self, "decay")


class DynamicState(NamedTuple):
    """The state of the base of a residual model, otherwise None, and a ``networks.dynamic.Row`` for each text."""

    base: Any
    rows: NDArray[np.object_]


@register_model("dynamic-evaluation")
class DynamicEvaluation(Wrapper):
    """Gradient descent while reading (Krause et al. 2018); ``model.adaptive()`` creates such a model.

    θ ← θ - η / (RMS + ε) ∇L(θ)     after each segment of s tokens
    θ ← θ + λ (θ_0 - θ)
    """

    Config = DynamicEvaluationConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        check("the model", self.model.name, hasattr(self.model, "network_parts"), "a network")

    @property
    def _parts(self) -> Any:
        """The base of a residual model or None, the network, and their exponents."""
        return self.model.network_parts()  # type: ignore[attr-defined]

    def with_dynamic_evaluation(self, settings: Mapping[str, Any]) -> LanguageModel | None:
        return self.model.with_dynamic_evaluation(settings)

    @property
    def adaptation(self) -> Adaptation:
        return "adapted weights"

    @property
    def has_large_states(self) -> bool:
        return True

    @derived
    def dynamic_network(self) -> DynamicNetwork:
        """The network, and the learning rates of its weights, which are measured when they are first used."""
        from revgen.networks.dynamic import DynamicNetwork

        config = self.config
        _, network, (_, factor) = self._parts
        dynamic = DynamicNetwork(network, float(factor), config.segment_size, config.max_norm, config.decay)
        ids = sample_texts(self.model)
        offsets, _ = self._base_offsets(ids[:-1], self._base_state(ids.shape[1]))
        dynamic.set_rates(config.learning_rate, config.floor, ids, offsets)
        return dynamic

    def _base_offsets(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.float32] | None, Any]:
        """Return what a residual model adds to the logits of its network, (time, batch, vocab), and the next state."""
        base, _, (exponent, _) = self._parts
        if base is None:
            return None, None
        logits, state = base.forward(tokens, state)
        return exponent * bounded_logprobs(logits), state

    def _base_state(self, batch: int) -> Any:
        base, _, _ = self._parts
        return None if base is None else base.initial_state(batch)

    def initial_state(self, batch: int) -> Any:
        rows = np.empty(batch, object)
        for i in range(batch):
            rows[i] = self.dynamic_network.initial_row()
        return DynamicState(self._base_state(batch), rows)

    def forward(self, tokens: NDArray[Any], state: Any) -> tuple[NDArray[np.floating[Any]], Any]:
        offsets, base_state = self._base_offsets(tokens, state.base)
        logits = np.empty((*tokens.shape, len(self.tokenizer)), np.float32)
        rows = state.rows.copy()
        for i, row in enumerate(state.rows):
            logits[:, i], rows[i] = self.dynamic_network.read(
                row, tokens[:, i], None if offsets is None else offsets[:, i]
            )
        return logits, DynamicState(base_state, rows)

    def join_states(self, states: Sequence[Any]) -> Any:
        base, _, _ = self._parts
        base_states, rows = zip(*states, strict=True)
        return DynamicState(None if base is None else base.join_states(base_states), np.concatenate(rows))

    def logprobs(self, sequences: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
        return score_sequences(self.forward, self.initial_state, sequences, batch_size=1)


def sample_texts(model: LanguageModel) -> NDArray[np.int64]:
    """Return texts that a model generates, (time, batch), for which the end of a document is not sampled."""
    random = np.random.default_rng(0)
    state, ids = model.initial_state(NUM_SAMPLES), [np.full(NUM_SAMPLES, model.tokenizer.bos_id)]
    excluded = [*model.suppressed_tokens, model.tokenizer.eos_id]
    for _ in range(SAMPLE_SIZE - 1):
        logits, state = model.forward(ids[-1][None], state)
        logits[..., excluded] = -np.inf
        ids.append((logits[0] + random.gumbel(size=logits[0].shape)).argmax(-1))
    return np.array(ids)
