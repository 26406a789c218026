"""A decoder-only transformer: each token attends to itself and to the tokens before it.

    x = √hidden E[tokens]
    x = x + attention(norm(x)) W_o                      for each layer
    x = x + gelu(norm(x) W_1 + b_1) W_2
    p(next token) = softmax(norm(x) E' + c)

    attention: q, k, v = x W_q, x W_k, x W_v in heads;  softmax(q k' / √size) v

A token attends to the last ``context`` tokens of its document. The keys and values of these tokens are the state (the
KV cache), so a text gives the same logits when it is read at once, in parts or token by token. Training reads the cache
only if a sequence is much shorter than the context, and gradients stop at its boundary. Queries and keys are rotated by
angles proportional to their positions, so that their products depend only on the distance.

(Vaswani et al. 2017, *Attention is all you need*; decoder only: Radford et al. 2018; pre-norm: Xiong et al. 2020;
rotary positions: Su et al. 2021; keys and values cached from part to part: Dai et al. 2019.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from revgen import ops
from revgen.architectures.functional_model import FunctionalModel
from revgen.evaluation.attention import check_attention_size
from revgen.networks.functional import Backend, FunctionalNetwork
from revgen.ops import Array, tree_map
from revgen.options import check, check_fractions, check_sizes
from revgen.registry import register_model
from revgen.tokenizers import Tokenizer
from revgen.training.recipe import GPU_WIDTH_FACTOR, MAX_DROPOUT, Recipe

if TYPE_CHECKING:
    from revgen.networks.compiled import CompiledNetwork


MIN_OWN_CONTEXT = 0.75
"""The length of a sequence that is trained without the tokens before it, as a fraction of the context."""
TOKENS_IN_A_MINUTE = 4e6
"""About the number of tokens that training reads in a minute on two CPU cores. A longer run trains a wider network, so
the number of tokens grows with the root of the time."""
WIDTH_PER_ROOT_TOKEN = 128 / 6e6**0.5
"""The default width grows with the root of the number of tokens to read, and so the parameters grow with the tokens."""
WIDTH_UNIT, MAX_WIDTH = 32, 512
EPOCHS_WITHOUT_DROPOUT, DROPOUT_PER_DOUBLING = 5, 0.05
"""Dropout slows a run down that reads each token a few times only; then each doubling of the epochs adds some."""

MAX_CACHE_VALUES = 1 << 26
"""The largest number of keys of one text, over all layers; keys and values then take 512 MiB."""
LARGE_CACHE_VALUES = 1 << 20
"""The number of keys of one text from which fewer texts are generated together."""
MAX_SCORES = 1 << 25
"""The number of attention scores of a layer, for all heads and texts, that are computed at once outside training."""


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes and the dropout rate of a transformer.

    If ``hidden_size`` or ``dropout`` is None, ``fit`` chooses it by the amount of training. ``context`` is the number
    of tokens that a token attends to, including itself. ``dropout`` is the rate for the embedding and for the output
    of each attention and feedforward block.
    """

    hidden_size: int | None = None
    num_layers: int = 4
    num_heads: int = 4
    context: int = 128
    dropout: float | None = None

    def __post_init__(self) -> None:
        check_sizes(self, "num_layers", "num_heads", "context", optional=["hidden_size"])
        is_multiple = (self.hidden_size or 0) % (2 * self.num_heads) == 0
        check("hidden_size", self.hidden_size, is_multiple, f"a multiple of 2 × num_heads = {2 * self.num_heads}")
        check_fractions(self, *(["dropout"] if self.dropout is not None else []))
        values = self.num_layers * (self.hidden_size or 0)
        fits = values * self.context <= MAX_CACHE_VALUES
        check("context", self.context, fits, f"at most {MAX_CACHE_VALUES // max(values, 1):,} with these sizes")


class Transformer(FunctionalNetwork):
    """A transformer without its tokenizer and weights.

    The state is the number of tokens read from each document, (batch,), and the last keys and values of each layer,
    each (batch, heads, tokens, size).
    """

    batch_axis = 0
    trains_in_bf16 = True

    @property
    def hidden_size(self) -> int:
        """The number of features of a token, or the smallest number if ``fit`` has not chosen it yet."""
        return int(self.config.hidden_size or 2 * self.config.num_heads)

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, hidden)}
        for i in range(self.config.num_layers):
            shapes |= {
                f"layers.{i}.attention": (hidden, 3 * hidden),  # queries, keys, values
                f"layers.{i}.output": (hidden, hidden),
                f"layers.{i}.up": (hidden, 4 * hidden),
                f"layers.{i}.bias": (4 * hidden,),
                f"layers.{i}.down": (4 * hidden, hidden),
            }
        for i in range(2 * self.config.num_layers + 1):  # before each block and the output
            shapes |= {f"norms.{i}.scale": (hidden,), f"norms.{i}.shift": (hidden,)}
        return shapes | {"bias": (self.vocab,)}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        weights = super().init_weight(name, shape, rng)
        if name.endswith(("output", "down")):  # so that the sum over all layers has the variance of one
            weights *= (2 * self.config.num_layers) ** -0.5
        return weights

    def num_blocks(self, name: str) -> int:
        return 3 if name.endswith("attention") else 1

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute features in parts of about ``context`` tokens, which limits the memory for a long sequence.

        In training, only a short sequence reads the cache: attention to the keys before a long one would take as much
        time as the sequence itself, and hardly improves the model.
        """
        if state is not None and backend.training and len(tokens) >= MIN_OWN_CONTEXT * self.config.context:
            state = state[0], [None] * len(p.layers)
        features = []
        num_cached = 0 if state is None or state[1][0] is None else state[1][0][0].shape[2]
        for begin, end in self.split(len(tokens), tokens.shape[1], num_cached, backend.training):
            part, state = self.read_part(p, tokens[begin:end], state, backend)
            features.append(part)
        return features[0] if len(features) == 1 else ops.concatenate(features, 0), state

    def split(self, length: int, batch: int = 1, num_cached: int = 0, training: bool = False) -> list[tuple[int, int]]:
        """Return the boundaries of parts of about ``context`` tokens, or fewer if memory requires it in generation."""
        size = self.config.context
        if not training and length > 1:
            num_keys = min(num_cached, size) + min(length, size)
            size = min(size, max(1, MAX_SCORES // (batch * self.config.num_heads * num_keys)))
        return split_evenly(length, size)

    def read_part(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute ``features`` of one part."""
        tokens = tokens.T
        num_read, caches = state or (tokens[:, 0] * 0, [None] * len(p.layers))
        positions = positions_in_documents(tokens, num_read)  # (batch, time)
        num_cached = 0 if caches[0] is None else caches[0][0].shape[2]
        mask = backend.cast(self.mask(positions, num_cached))
        cos, sin = ops.rotary_angles(positions[:, None], self.hidden_size // self.config.num_heads)
        rotation = backend.cast(ops.concatenate([cos, cos])), backend.cast(ops.concatenate([-sin, sin]))
        x = backend.cast(ops.embedding(p.embedding, tokens) * self.hidden_size**0.5)  # (batch, time, hidden)
        x = backend.dropout(x)
        new_caches = []
        for i, layer in enumerate(p.layers):
            y, cache = self.attention(layer, norm(p, 2 * i, x), rotation, mask, caches[i], backend)
            x = x + backend.dropout(y)
            x = x + backend.dropout(ops.gelu(norm(p, 2 * i + 1, x) @ layer.up + layer.bias) @ layer.down)
            new_caches.append(cache)
        return norm(p, -1, x).swapaxes(0, 1), (positions[:, -1] + 1, new_caches)

    def pad_state(self, state: Any) -> Any:
        """Return the state with zeros before the keys and values of the first token, which ``mask`` excludes."""
        num_read, caches = state
        missing = self.config.context - 1 - caches[0][0].shape[2]
        return num_read, tree_map(lambda a: ops.pad_before(a, missing, 2), caches)

    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        return features @ p.embedding.T + p.bias

    def attention(
        self, layer: SimpleNamespace, x: Array, rotation: Any, mask: Array, cache: Any, backend: Backend
    ) -> tuple[Array, Any]:
        """Compute attention: x (batch, time, hidden) and the cache -> (batch, time, hidden) and the next cache."""
        batch, time, hidden = x.shape
        heads = self.config.num_heads
        qkv = (x @ layer.attention).reshape(batch, time, 3 * heads, hidden // heads).swapaxes(1, 2)
        qk, v = rotate(qkv[:, : 2 * heads], rotation), qkv[:, 2 * heads :]
        q, k = qk[:, :heads], qk[:, heads:]  # (batch, heads, time, size)
        if cache is not None:
            k, v = ops.concatenate([cache[0], k], 2), ops.concatenate([cache[1], v], 2)
        y = backend.attention(q, k, v, mask).swapaxes(1, 2).reshape(batch, time, hidden)
        first = max(0, k.shape[2] - self.config.context + 1)
        return y @ layer.output, (k[:, :, first:], v[:, :, first:])

    def mask(self, positions: Array, num_cached: int) -> Array:
        """Return the attention mask, (batch, 1, time, cached + time), for tokens at these positions, (batch, time).

        A token attends to itself, and to the ``context`` - 1 tokens before it as far as they are in its document.
        """
        order = ops.arange(num_cached + positions.shape[1], positions)
        distance = order[num_cached:, None] - order  # (time, cached + time)
        in_context = (distance >= 0) & (distance < self.config.context)
        return in_context & (distance <= positions[:, None, :, None])

    def build_compiled(self, p: SimpleNamespace) -> CompiledNetwork:
        from revgen.networks.compiled import CompiledNetwork
        from revgen.networks.layouts import Block, TransformerNet, pack_weight

        hidden, heads = self.hidden_size, self.config.num_heads
        net = TransformerNet(
            embedding=pack_weight(p.embedding),
            layers=tuple(
                Block(**{name: pack_weight(getattr(layer, name)) for name in Block._fields}) for layer in p.layers
            ),
            scales=tuple(norm.scale for norm in p.norms),
            shifts=tuple(norm.shift for norm in p.norms),
            head=pack_weight(p.embedding.T),
            bias=p.bias,
            context=self.config.context,
            frequencies=ops.rotary_frequencies(hidden // heads),
        )

        def to_arrays(state: Any, num_tokens: int) -> Any:
            num_read, caches = state or (np.zeros(1, np.int64), [None] * len(p.layers))
            cached = 0 if caches[0] is None else caches[0][0].shape[2]
            keys = np.zeros((len(caches), heads, hidden // heads, cached + num_tokens), np.float32)
            values = np.zeros((len(caches), heads, cached + num_tokens, hidden // heads), np.float32)
            for i, cache in enumerate(caches if cached else []):
                keys[i, :, :, :cached], values[i, :, :cached] = cache[0][0].swapaxes(1, 2), cache[1][0]
            return num_read.astype(np.int64), np.array([cached]), keys, values

        def to_state(arrays: Any) -> Any:
            num_read, (cached,), keys, values = arrays
            first = max(0, cached - self.config.context + 1)
            keys, values = keys.swapaxes(2, 3)[:, None, :, first:cached], values[:, None, :, first:cached]
            return num_read, list(zip(keys, values, strict=True))

        return CompiledNetwork(net, to_arrays, to_state)


def positions_in_documents(tokens: Array, num_read: Array) -> Array:
    """Return the position of each token in its document, (batch, time).

    ``num_read`` (batch,) is the number of tokens that have been read from the document that continues in each row.
    """
    order, num_read = ops.arange(tokens.shape[1], tokens), num_read[:, None]
    starts = (tokens == Tokenizer.bos_id) * (order + num_read) - num_read  # -num_read if no document starts here
    return order - ops.cummax(starts)


def norm(p: SimpleNamespace, i: int, x: Array) -> Array:
    """Apply the i-th layer normalization."""
    return ops.layer_norm(x, p.norms[i].scale, p.norms[i].shift)


def rotate(x: Array, rotation: tuple[Array, Array]) -> Array:
    """Rotate pairs of channels, (a, b) -> (a cos - b sin, b cos + a sin); ``rotation`` is (cos, cos), (-sin, sin)."""
    (a, b), (cos, sin) = ops.split(x, 2), rotation
    return x * cos + ops.concatenate([b, a]) * sin


def split_evenly(length: int, size: int) -> list[tuple[int, int]]:
    """Return the boundaries of equal parts of a sequence; their length is as near to ``size`` as possible."""
    num_parts = max(1, round(length / size))
    boundaries = [length * i // num_parts for i in range(num_parts + 1)]
    return list(pairwise(boundaries))


class AttentionRecorder(Backend):
    """A backend that collects the attention weights of every layer, each (batch, heads, time, cached + time)."""

    def __init__(self) -> None:
        self.weights: list[NDArray[Any]] = []

    def attention(self, query: Array, key: Array, value: Array, mask: Array) -> Array:
        weights = ops.attention_weights(query, key, mask)
        self.weights.append(weights if isinstance(weights, np.ndarray) else weights.cpu().numpy())
        return weights @ value


@register_model("transformer")
class TransformerModel(FunctionalModel):
    """A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2018).

    x = √hidden embedding[token]
    q, k, v = norm(x) attention               for each layer i, with norm 2i; q and k are rotated by positions
    x = x + softmax(q k' / √size) v output    for each head
    x = x + gelu(norm(x) up + bias) down      with norm 2i + 1
    logits = norm(x) embedding' + bias        with the last norm
    """

    Config = TransformerConfig
    network_class = Transformer
    learning_rate = 8e-3
    optimizer = "muon"
    sequence_length = 128
    max_batch_size = 32

    @property
    def has_large_states(self) -> bool:
        return bool(self.config.num_layers * (self.config.hidden_size or 0) * self.config.context > LARGE_CACHE_VALUES)

    def suggest_sizes(self, recipe: Recipe, tokens: int) -> dict[str, Any]:
        """Return a width and a dropout rate that grow with the number of tokens to read."""
        to_read = recipe.planned_epochs(tokens) * tokens
        if recipe.max_seconds is not None:
            to_read = min(to_read, TOKENS_IN_A_MINUTE * (recipe.max_seconds / 60) ** 0.5)
        on_gpu = self.device != "cpu"
        width = WIDTH_PER_ROOT_TOKEN * to_read**0.5 * (GPU_WIDTH_FACTOR if on_gpu and recipe.max_seconds else 1)
        doublings = math.log2(max(1.0, to_read / tokens / EPOCHS_WITHOUT_DROPOUT))
        unit = math.lcm(2 * self.config.num_heads, WIDTH_UNIT)
        return {
            "hidden_size": unit * max(1, min(round(width / unit), MAX_WIDTH // unit)),
            "dropout": round(min(DROPOUT_PER_DOUBLING * doublings, MAX_DROPOUT), 2),
        }

    def attention_weights(self, ids: NDArray[Any]) -> NDArray[np.floating[Any]]:
        layers, heads = self.config.num_layers, self.config.num_heads
        check_attention_size(len(ids), layers * heads)
        recorder = AttentionRecorder()
        self.run_with_backend(recorder, ids[:, None])
        result = np.zeros((layers, heads, len(ids), len(ids)), np.float32)
        for i, (begin, end) in enumerate(Transformer(self.config, 0).split(len(ids))):
            for layer, weights in enumerate(recorder.weights[i * layers : (i + 1) * layers]):
                result[layer, :, begin:end, end - weights.shape[3] : end] = weights[0]
        return result
