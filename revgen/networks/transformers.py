"""A network of the zoo in the clothes of the library ``transformers``: its ``generate``, pipelines and trainers.

The network and the tokenizer are the model's own; what is added is how they are called. Between the steps of
``generate`` goes the network's state, as it does in ``revgen.generation``, so that no token is read twice.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizer,
)
from transformers.utils import ModelOutput

from revgen.errors import OptionError
from revgen.networks.neural import NeuralModel
from revgen.ops import map_state
from revgen.tokenizers import Tokenizer
from revgen.tokenizers.tokenizer import SPECIALS

START, END, UNKNOWN = SPECIALS


class RevgenConfig(PreTrainedConfig):
    """The name and the configuration of the model: ``name`` and ``network``."""

    model_type = "revgen"
    keys_to_ignore_at_inference = ["state"]


class RevgenTokenizer(PreTrainedTokenizer):
    """A tokenizer of revgen: ``<s>`` begins a document, ``</s>`` ends it and pads, on the left.

    It puts ``<s>`` before a text. The special tokens are ids that no text spells: ``"<s>"`` is three characters.
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, tokenizer: Tokenizer, **options: Any) -> None:
        self.levelled = tokenizer
        self.ids = {token: i for i, token in enumerate(tokenizer.vocabulary)}
        super().__init__(
            bos_token=START,
            eos_token=END,
            unk_token=UNKNOWN,
            pad_token=END,
            padding_side="left",
            special_tokens_pattern="bos",
            split_special_tokens=True,
            clean_up_tokenization_spaces=False,
            **options,
        )

    @property
    def vocab_size(self) -> int:
        return len(self.levelled)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return [self.levelled.vocabulary[i] for i in self.levelled.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, self.levelled.unknown)

    def _convert_id_to_token(self, index: int) -> str:
        return self.levelled.vocabulary[index]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens; special ones stand there by their names."""
        runs = groupby(tokens, SPECIALS.__contains__)
        return "".join(
            "".join(run) if special else self.levelled.decode(map(self._convert_token_to_id, run))
            for special, run in runs
        )

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the tokenizer's file of a model directory."""
        file = Path(save_directory) / f"{filename_prefix or ''}{self.levelled.file}"
        file.write_bytes(self.levelled.to_bytes())
        return (str(file),)


@dataclass
class RevgenOutput(ModelOutput):
    """The mean loss in nats per token where labels were given, logits (batch, time, vocab), the network's state."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: Any = None


class RevgenForCausalLM(PreTrainedModel, GenerationMixin):
    """``network`` is the PyTorch network with the model's weights, and ``tokenizer`` goes with it."""

    config_class = RevgenConfig
    _is_stateful = True  # a state cannot be taken back, which speculative decoding would need

    def __init__(self, model: NeuralModel, label: str | None = None) -> None:
        tokenizer = model.tokenizer
        special = {"bos_token_id": tokenizer.start, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.end}
        network = dataclasses.asdict(model.config)
        super().__init__(RevgenConfig(name=model.name, network=network, vocab_size=len(tokenizer), **special))
        self.network = model.make_network()
        self.tokenizer = RevgenTokenizer(tokenizer, name_or_path=model.name)
        self.origin = copy.copy(model)
        self.shift = model.label_shift(label)
        self.post_init()
        self.generation_config = GenerationConfig(**special, suppress_tokens=[tokenizer.start, tokenizer.unknown])

    def _init_weights(self, module: nn.Module) -> None:
        """They are there."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: Any = None,
        labels: Tensor | None = None,
        use_cache: bool = True,
        **options: Any,
    ) -> RevgenOutput:
        """Ids (batch, time), of documents that begin, or go on from a ``state``.

        Where ``attention_mask`` is 0 on the left, a document has not begun; elsewhere it changes nothing, as no token
        looks at what follows. ``labels`` are ids too, -100 where none counts; the first is not predicted. ``options``
        are for the loss. Raises OptionError for a row of padding alone, and for padding behind a state.
        """
        tokens = input_ids.T + self.shift
        begins = text_begins(tokens, attention_mask)
        if state is None:
            logits, state = self.read(tokens, begins)
        elif begins.any():
            raise OptionError("attention_mask has padding between a state and the tokens that follow it")
        else:
            logits, state = self.network(tokens, state)
        logits = logits.transpose(0, 1).contiguous()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **options)
            if self.training:
                loss = loss + self.network.penalty
        return RevgenOutput(loss, logits, state if use_cache else None)

    def read(self, tokens: Tensor, begins: Tensor) -> tuple[Tensor, Any]:
        """Tokens (time, batch) of rows that begin there, (batch,) -> logits (time, batch, vocab), the state.

        Rows that begin at the same place are read together, so that each gives what it gives alone.
        """
        places, logits, states = [], [], []
        for begin in sorted(set(begins.tolist())):
            rows = (begins == begin).nonzero()[:, 0]
            part, state = self.network(tokens[begin:, rows])
            places.append(rows)
            logits.append(nn.functional.pad(part, (0, 0, 0, 0, begin, 0)))
            states.append(state)
        order = torch.cat(places).argsort()
        return torch.cat(logits, 1)[:, order], self._reorder_cache(pytree.tree_map(joined, *states), order)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: Any = None,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The last token where there is a state of those before it, all of them where there is none."""
        new = input_ids if state is None else input_ids[:, -1:]
        return {"input_ids": new, "attention_mask": attention_mask, "state": state, "use_cache": use_cache}

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **options: Any
    ) -> dict[str, Any]:
        """The state goes on to the next step."""
        if outputs.state is not None:
            model_kwargs["state"] = outputs.state
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **options)
        return updated

    def _reorder_cache(self, state: Any, rows: Tensor) -> Any:
        """The state of these rows of the batch, in this order: for beam search."""
        return map_state(lambda array: array.index_select(0, rows), state)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """``generate`` need not bring keys and values: the state is what is kept."""
        return False

    def to_revgen(self) -> NeuralModel:
        """The model of revgen with the present weights, which may have been trained here."""
        model, weights = copy.copy(self.origin), self.network.arrays()
        if any((weights[name] != array).any() for name, array in model.weights.items()):
            model.weights = weights
            model.unpublish()
        return model

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write a model directory of revgen with the present weights; the options of other models mean nothing here."""
        self.to_revgen().save(save_directory)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> RevgenForCausalLM:
        """``to_transformers`` of what ``revgen.load`` gives for the same arguments."""
        from revgen.zoo import load, to_transformers

        return to_transformers(load(name, **options))


def text_begins(tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Where each row of tokens (time, batch) begins, behind what the mask (batch, … + time) leaves out: (batch,)."""
    time, batch = tokens.shape
    if attention_mask is None:
        return tokens.new_zeros(batch)
    begins = (attention_mask[:, -time:].cumsum(1) == 0).sum(1)
    if (begins == time).any():
        raise OptionError(f"attention_mask has a row without a token: {(begins == time).nonzero()[0, 0]}")
    return begins


def joined(*parts: Any) -> Any:
    """Arrays of several states, (batch, …), as one; None, where a network keeps nothing.

    A transformer keeps fewer keys of a shorter text: they stand at the end, behind zeros that its mask leaves out.
    """
    if not isinstance(parts[0], Tensor):
        return parts[0]
    sizes = [max(column) for column in zip(*(part.shape[1:] for part in parts), strict=True)]
    padded = []
    for part in parts:
        missing = [most - size for most, size in zip(sizes, part.shape[1:], strict=True)]
        padded.append(nn.functional.pad(part, [n for more in reversed(missing) for n in (more, 0)]))
    return torch.cat(padded)


AutoModelForCausalLM.register(RevgenConfig, RevgenForCausalLM)  # a pipeline asks there whether a model writes text
