"""A decoder-only transformer: each token looks back at the ones before it and takes from those that matter.

    x = √hidden E[tokens]
    x = x + attention(norm(x)) W_o                      for each layer
    x = x + gelu(norm(x) W_1 + b_1) W_2
    p(next token) = softmax(norm(x) E' + c)

    attention: q, k, v = x W_q, x W_k, x W_v in heads;  softmax(q k' / √size) v

Attention reaches over the last ``context`` tokens of a document. The keys and values of these are the state, so that
a text read in parts, or token by token, gives what it gives at once; gradients stop at the border of a part. Queries
and keys are turned by angles proportional to their positions, so that their products depend on the distance alone.

(Vaswani et al. 2017, *Attention is all you need*; decoder only: Radford et al. 2018; the norm before each part: Xiong
et al. 2020; rotary positions: Su et al. 2021; keys and values kept from part to part: Dai et al. 2019.)
"""

from __future__ import annotations

from dataclasses import dataclass
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

if TYPE_CHECKING:
    from revgen.networks.compiled import CompiledNetwork


@dataclass(frozen=True)
class TransformerConfig:
    """``context`` is the number of tokens that one layer looks at, the present one among them; ``dropout`` the share
    of the embedding and of what each part adds that is left out of a training step."""

    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    context: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_size", "num_layers", "num_heads", "context")
        fits = self.hidden_size % (2 * self.num_heads) == 0
        check("hidden_size", self.hidden_size, fits, f"a multiple of 2 × num_heads = {2 * self.num_heads}")
        check_fractions(self, "dropout")


class Transformer(FunctionalNetwork):
    """The network; its state is how many tokens of the document were read, (batch,), and for each layer the last keys
    and values, each (batch, heads, tokens, size)."""

    batch_axis = 0

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden = self.config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, hidden)}
        for i in range(self.config.num_layers):
            shapes |= {
                f"layers.{i}.attention": (hidden, 3 * hidden),  # queries, keys, values
                f"layers.{i}.output": (hidden, hidden),
                f"layers.{i}.up": (hidden, 4 * hidden),
                f"layers.{i}.bias": (4 * hidden,),
                f"layers.{i}.down": (4 * hidden, hidden),
            }
        for i in range(2 * self.config.num_layers + 1):  # before each attention and each feedforward part, and the last
            shapes |= {f"norms.{i}.scale": (hidden,), f"norms.{i}.shift": (hidden,)}
        return shapes | {"bias": (self.vocab,)}

    def init_weight(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
        weights = super().init_weight(name, shape, rng)
        if name.endswith(("output", "down")):  # so that all they add up to has the size of one
            weights *= (2 * self.config.num_layers) ** -0.5
        return weights

    def features(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Read a long sequence in parts of ``context`` tokens, which bounds the memory for it."""
        features = []
        for begin in range(0, len(tokens), self.config.context):
            part, state = self.read(p, tokens[begin : begin + self.config.context], state, backend)
            features.append(part)
        return ops.concatenate(features, 0), state

    def read(self, p: SimpleNamespace, tokens: Array, state: Any, backend: Backend) -> tuple[Array, Any]:
        """Compute ``features`` of at most ``context`` tokens."""
        tokens = tokens.T
        read, caches = state or (tokens[:, 0] * 0, [None] * len(p.layers))
        positions = positions_in_documents(tokens, read)  # (batch, time)
        kept = 0 if caches[0] is None else caches[0][0].shape[2]
        mask = self.mask(positions, kept)
        turn = ops.rotary_angles(positions[:, None], self.config.hidden_size // self.config.num_heads)
        x = backend.dropout(ops.embedding(p.embedding, tokens) * self.config.hidden_size**0.5)  # (batch, time, hidden)
        new = []
        for i, layer in enumerate(p.layers):
            y, cache = self.attention(layer, norm(p, 2 * i, x), turn, mask, caches[i], backend)
            x = x + backend.dropout(y)
            x = x + backend.dropout(ops.gelu(norm(p, 2 * i + 1, x) @ layer.up + layer.bias) @ layer.down)
            new.append(cache)
        return norm(p, -1, x).swapaxes(0, 1), (positions[:, -1] + 1, new)

    def pad_state(self, state: Any) -> Any:
        """With keys before the document's first, which ``mask`` leaves out."""
        from torch.nn.functional import pad

        read, caches = state
        room = self.config.context - 1 - caches[0][0].shape[2]
        return read, tree_map(lambda a: pad(a, (0, 0, room, 0)), caches) if room else caches

    def logits(self, p: SimpleNamespace, features: Array) -> Array:
        return features @ p.embedding.T + p.bias

    def attention(
        self, layer: SimpleNamespace, x: Array, turn: Any, mask: Array, cache: Any, backend: Backend
    ) -> tuple[Array, Any]:
        """(batch, time, hidden), the keys and values before -> (batch, time, hidden), keys and values to keep."""
        batch, time, hidden = x.shape
        heads = (batch, time, self.config.num_heads, hidden // self.config.num_heads)
        q, k, v = (part.reshape(heads).swapaxes(1, 2) for part in ops.split(x @ layer.attention, 3))
        q, k = rotate(q, turn), rotate(k, turn)  # (batch, heads, time, size)
        if cache is not None:
            k, v = ops.concatenate([cache[0], k], 2), ops.concatenate([cache[1], v], 2)
        y = backend.attention(q, k, v, mask).swapaxes(1, 2).reshape(batch, time, hidden)
        first = max(0, k.shape[2] - self.config.context + 1)
        return y @ layer.output, (k[:, :, first:], v[:, :, first:])

    def mask(self, positions: Array, kept: int) -> Array:
        """Which of the kept and the new tokens each new one sees: (batch, time) -> (batch, 1, time, kept + time).

        The last ``context`` as far as they are of its document, and none that follows it.
        """
        order = ops.arange(kept + positions.shape[1], positions)
        distance = order[kept:, None] - order  # (time, kept + time)
        seen = (distance >= 0) & (distance < self.config.context)
        return seen & (distance <= positions[:, None, :, None])

    def build_compiled(self, p: SimpleNamespace) -> CompiledNetwork:
        from revgen.networks.compiled import CompiledNetwork
        from revgen.networks.layouts import Block, TransformerNet, pack_weight

        hidden, heads = self.config.hidden_size, self.config.num_heads
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

        def begin(state: Any, room: int) -> Any:
            read, caches = state or (np.zeros(1, np.int64), [None] * len(p.layers))
            kept = 0 if caches[0] is None else caches[0][0].shape[2]
            keys = np.zeros((len(caches), heads, hidden // heads, kept + room), np.float32)
            values = np.zeros((len(caches), heads, kept + room, hidden // heads), np.float32)
            for i, cache in enumerate(caches if kept else []):
                keys[i, :, :, :kept], values[i, :, :kept] = cache[0][0].swapaxes(1, 2), cache[1][0]
            return read.astype(np.int64), np.array([kept]), keys, values

        def end(arrays: Any) -> Any:
            read, (kept,), keys, values = arrays
            first = max(0, kept - self.config.context + 1)
            keys, values = keys.swapaxes(2, 3)[:, None, :, first:kept], values[:, None, :, first:kept]
            return read, list(zip(keys, values, strict=True))

        return CompiledNetwork(net, begin, end)


def positions_in_documents(tokens: Array, read: Array) -> Array:
    """How many tokens of its document stand before each, (batch, time), where ``read`` of the first document, (batch,),
    stand before these."""
    order, read = ops.arange(tokens.shape[1], tokens), read[:, None]
    begins = (tokens == Tokenizer.bos_id) * (order + read) - read  # before this part for a token that begins none
    return order - ops.cummax(begins)


def norm(p: SimpleNamespace, i: int, x: Array) -> Array:
    """The i-th normalization."""
    return ops.layer_norm(x, p.norms[i].scale, p.norms[i].shift)


def rotate(x: Array, turn: tuple[Array, Array]) -> Array:
    """Pairs of channels turned by the angles of ``ops.rotation``."""
    (a, b), (cos, sin) = ops.split(x, 2), turn
    return ops.concatenate([a * cos - b * sin, a * sin + b * cos])


class AttentionWatch(Backend):
    """A backend that gathers the attention weights of every layer, each (batch, heads, time, kept + time)."""

    def __init__(self) -> None:
        self.weights: list[NDArray[Any]] = []

    def attention(self, query: Array, key: Array, value: Array, mask: Array) -> Array:
        weights = ops.attention_weights(query, key, mask)
        self.weights.append(weights if isinstance(weights, np.ndarray) else weights.cpu().numpy())
        return weights @ value


@register_model("transformer")
class TransformerModel(FunctionalModel):
    """A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2018)."""

    Config = TransformerConfig
    network_class = Transformer
    learning_rate = 4e-3

    def attention_weights(self, ids: NDArray[Any]) -> NDArray[np.floating[Any]]:
        layers, heads = self.config.num_layers, self.config.num_heads
        check_attention_size(len(ids), layers * heads)
        watch = AttentionWatch()
        self.run_with_backend(watch, ids[:, None])
        found = np.zeros((layers, heads, len(ids), len(ids)), np.float32)
        for i, weights in enumerate(watch.weights):  # part by part of a long text, all layers of each
            begin = i // layers * self.config.context
            end = begin + weights.shape[2]
            found[i % layers, :, begin:end, end - weights.shape[3] : end] = weights[0]
        return found
