"""A network of the zoo as a model of the library ``transformers``: for its ``generate``, pipelines and trainers.

The network and the tokenizer are the model's own; what is added is how they are called. Between the steps of
``generate`` goes the network's state, as it does in ``revgen.generation``, so that no token is read twice.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers import (
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    PreTrainedTokenizer,
    initialization as init,
)
from transformers.utils import ModelOutput

from revgen import schema
from revgen.architectures.neural import NeuralModel
from revgen.errors import OptionError
from revgen.files import is_rank_zero, write_atomically
from revgen.hub import find_directory
from revgen.interop.transformers_config import RevgenConfig
from revgen.model import Model, Weights
from revgen.networks.network import FunctionalModule
from revgen.ops import tree_map
from revgen.registry import architecture_class, tokenizers
from revgen.storage import CONFIG, WEIGHTS, load_directory, read_config, read_tokenizer, write_directory
from revgen.tokenizers import Tokenizer
from revgen.tokenizers.tokenizer import SPECIAL_TOKENS

START, END, UNKNOWN = SPECIAL_TOKENS
TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
FILE_ENTRIES = {"format_version", "tokenizer", "weights", "index", "metadata", "package"}
"""The entries of config.json that hold for the files of a model directory that revgen writes."""

ONE_FILE = 1 << 50
"""Bytes that weights may have before ``save_pretrained`` divides them: a model directory has one file of weights."""


class RevgenTokenizer(PreTrainedTokenizer):
    """A tokenizer of revgen: ``<s>`` begins a document, ``</s>`` ends it and pads, on the left.

    It puts ``<s>`` before a text. The special tokens are ids that no text spells: ``"<s>"`` is three characters.
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, tokenizer: Tokenizer, **options: Any) -> None:
        self.levelled = tokenizer
        self.ids = {token: i for i, token in enumerate(tokenizer.vocabulary)}
        for file in ("vocab_file", "tokenizer_file"):  # what other tokenizers would be read from
            options.pop(file, None)
        defaults = {
            "bos_token": START,
            "eos_token": END,
            "unk_token": UNKNOWN,
            "pad_token": END,
            "padding_side": "left",
            "special_tokens_pattern": "bos",
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
        }
        super().__init__(**(defaults | options | {"level": tokenizer.level}))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *inputs: Any, **options: Any
    ) -> RevgenTokenizer:
        """Load the tokenizer of a model directory, a repository on the Hub, a pretrained model, or one that was saved
        by ``save_pretrained``."""
        directory = found(pretrained_model_name_or_path, options)
        saved = directory / TOKENIZER_CONFIG
        level = str(schema.read_json(saved).get("level")) if saved.exists() else ""
        if level in tokenizers and (file := directory / tokenizers.get(level).file).exists():
            tokenizer = tokenizers.get(level).from_bytes(file.read_bytes())
        else:
            tokenizer = read_tokenizer(directory, read_config(directory))
        options = {"added_tokens_decoder": {}} | options if not saved.exists() else options
        loaded: RevgenTokenizer = super().from_pretrained(str(directory), tokenizer=tokenizer, **options)
        return loaded

    @property
    def vocab_size(self) -> int:
        return len(self.levelled)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.ids)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return [self.levelled.vocabulary[i] for i in self.levelled.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, self.levelled.unk_id)

    def _convert_id_to_token(self, index: int) -> str:
        return self.levelled.vocabulary[index]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens; special ones stand there by their names."""
        runs = groupby(tokens, SPECIAL_TOKENS.__contains__)
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
    """The mean loss in nats per token where labels were given, logits (batch, time, vocab), the network's state, and,
    where they are asked for, the ``hidden_states``: what logits are computed from, one tensor (batch, time, features).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: Any = None
    hidden_states: tuple[Tensor, ...] | None = None


class _Outputs(nn.Module):
    """A network that returns its features, (batch, time, features), with the logits and the state."""

    def __init__(self, network: FunctionalModule) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        features, state = self.network.features(tokens, state)
        features = features.transpose(0, 1)  # what is returned is what the logits are computed from, for its gradient
        return features, self.network.logits(features.transpose(0, 1)), state


class RevgenForCausalLM(PreTrainedModel, GenerationMixin):
    """A network with its parameters under the names that the weights have in a model directory.

    ``model`` is the model of revgen with weights and tokenizer; without it the network is a new one of ``config``, and
    has no tokenizer. ``label`` is the one that all texts have, for a model that was fitted with labels.
    """

    config_class = RevgenConfig
    _is_stateful = True  # a state cannot be taken back, which speculative decoding would need

    def __init__(self, config: RevgenConfig, model: NeuralModel | None = None, label: str | None = None) -> None:
        super().__init__(config)
        self.origin = untrained(config) if model is None else copy.copy(model)
        self.tokenizer: Any = None if model is None else RevgenTokenizer(model.tokenizer, name_or_path=model.name)
        self.shift = self.origin.label_offset(label)
        self.config.vocab_size = len(self.origin.tokenizer)
        with torch.device("meta"):  # it computes with the parameters of this module
            network = self.origin.make_network()
        object.__setattr__(self, "network", network)  # not a submodule, whose parameters would have other names
        for name, shape in self.origin.weight_shapes().items():
            put(self, name, nn.Parameter(torch.empty(shape)))
        self.post_init()
        self.generation_config = default_generation(config)

    network: FunctionalModule

    def _init_weights(self, module: nn.Module) -> None:
        """Fill all parameters: with the weights of the model, or at random where there are none."""
        if module is self:
            for name, array in (first_weights(self.origin) if self.tokenizer is None else self.origin.weights).items():
                init.copy_(self.get_parameter(name), torch.tensor(np.asarray(array, np.float32)))

    def train(self, mode: bool = True) -> RevgenForCausalLM:
        super().train(mode)
        self.network.train(mode)
        return self

    def _replicate_for_data_parallel(self) -> RevgenForCausalLM:
        """Give each replica a network of its own, as replicas compute at the same time."""
        replica: RevgenForCausalLM = super()._replicate_for_data_parallel()
        object.__setattr__(replica, "network", copy.deepcopy(self.network))
        return replica

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: Any = None,
        labels: Tensor | None = None,
        use_cache: bool = True,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> RevgenOutput | tuple[Any, ...]:
        """Compute logits from ids (batch, time), of documents that begin, or continue from a ``state``.

        Where ``attention_mask`` is 0 on the left, a document has not begun; elsewhere it changes nothing, as no token
        looks at what follows. ``labels`` are ids too, -100 where none counts; the first is not predicted. ``options``
        are for the loss. Raises OptionError for a row of padding alone, and for padding after a state.
        """
        tokens = input_ids.T + self.shift
        if state is None:
            logits, features, state = self.read(tokens, attention_mask)
        elif attention_mask is not None and text_begins(tokens, attention_mask).any():
            raise OptionError("attention_mask has padding between a state and the tokens that follow it")
        else:
            logits, features, state = self.compute(tokens, state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **options)
            if self.training:
                loss = loss + self.network.penalty
        wants_features = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        hidden = (features,) if wants_features else None
        output = RevgenOutput(loss, logits, state if use_cache else None, hidden)
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def read(self, tokens: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor, Any]:
        """Compute what ``compute`` does, of rows that each begin after what the mask leaves out.

        Rows that begin at the same position are read together, so that each gives what it gives alone.
        """
        if attention_mask is None or attention_mask[:, -len(tokens)].all():
            return self.compute(tokens, None)
        begins = text_begins(tokens, attention_mask)
        rows, outputs, states = [], [], []
        for begin in sorted(set(begins.tolist())):
            rows.append((begins == begin).nonzero()[:, 0])
            *parts, state = self.compute(tokens[begin:, rows[-1]], None)
            outputs.append([nn.functional.pad(part, (0, 0, begin, 0)) for part in parts])
            states.append(state)
        order = torch.cat(rows).argsort()
        logits, features = (torch.cat(parts)[order] for parts in zip(*outputs, strict=True))
        return logits, features, self._reorder_cache(pytree.tree_map(joined, *states), order)

    def compute(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Compute with the parameters of this module: tokens (time, batch), a state or None -> logits (batch, time,
        vocab), the features that they are computed from, (batch, time, features), and the new state."""
        parameters = {f"network.params.{i}": attrgetter(name)(self) for i, name in enumerate(self.network.names)}
        features, logits, state = torch.func.functional_call(_Outputs(self.network), parameters, (tokens, state))
        return logits.transpose(0, 1).contiguous(), features, state

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding as a module that shares the parameter."""
        module = self.__dict__.setdefault("embedding_module", nn.Embedding(1, 1, device="meta"))
        module.weight = self.embedding
        module.num_embeddings, module.embedding_dim = module.weight.shape
        return cast(nn.Module, module)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Take over the weight of a module as the embedding."""
        self.__dict__["embedding_module"] = value
        self.embedding = value.weight

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **options: Any) -> nn.Module:
        """Return the embedding. Raises OptionError for another size than it has, as the tokenizer would not fit."""
        if new_num_tokens not in (None, self.config.vocab_size):
            raise OptionError(
                f"the vocabulary has {self.config.vocab_size:,} tokens, not {new_num_tokens:,}: "
                "to add tokens, fit the model of revgen with extend_vocabulary=True"
            )
        return self.get_input_embeddings()

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
        return {"input_ids": new, "attention_mask": attention_mask, "state": state, "use_cache": use_cache} | kwargs

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
        return tree_map(lambda array: array.index_select(0, rows), state)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """``generate`` need not bring keys and values: the state is what is kept."""
        return False

    def arrays(self) -> Weights:
        """Return the present weights as NumPy arrays."""
        return {n: p.detach().float().cpu().numpy().copy() for n, p in self.named_parameters()}

    def to_revgen(self) -> NeuralModel:
        """Return the model of revgen with the present weights, which may have been trained here."""
        if self.tokenizer is None:
            raise OptionError("a model that was made from its configuration alone has no tokenizer, as revgen needs it")
        model, weights = copy.copy(self.origin), self.arrays()
        if any((weights[name] != array).any() for name, array in model.weights.items()):
            model.weights = {name: weights[name] for name in model.weights}
            model.unpublish()
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Write a model directory of revgen with the present weights, which ``from_pretrained`` reads too.

        ``options`` are those of ``PreTrainedModel``. The weights are in one file, whatever ``max_shard_size`` is.
        """
        directory = Path(save_directory)
        with TemporaryDirectory() as name:
            made = Path(name)
            super().save_pretrained(made, is_main_process, state_dict, **(options | {"max_shard_size": ONE_FILE}))
            if not (is_main_process and is_rank_zero()):
                return
            files = {path.name: path.read_bytes() for path in made.iterdir()}
        if WEIGHTS in files:  # and not those of an adapter alone
            config = {key: value for key, value in json.loads(files.pop(CONFIG)).items() if key not in FILE_ENTRIES}
            if self.tokenizer is None:
                files[CONFIG] = json.dumps(config, indent=2).encode()
            else:
                write_directory(self.to_revgen(), directory, files.pop(WEIGHTS), config["dtype"], config)
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write_atomically(directory / file, content)
        if push_to_hub:
            self.push_to_hub(options.get("repo_id", directory.name))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path | None, *args: Any, label: str | None = None, **options: Any
    ) -> Any:
        """Load a model directory, a repository on the Hub or a pretrained model.

        ``options`` are those of ``PreTrainedModel``. Raises OptionError for a model that is no network, and the errors
        of ``revgen.load``.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, **options)
        directory = found(pretrained_model_name_or_path, options)
        model = None
        if "format_version" in schema.read_json(directory / CONFIG):
            model = load_directory(directory)
            check_network(model)
        loaded = super().from_pretrained(str(directory), model, label, **options)
        lm = loaded[0] if options.get("output_loading_info") else loaded
        if options.get("generation_config") is None and not (directory / GENERATION_CONFIG).exists():
            lm.generation_config = default_generation(lm.config)
        return loaded


def check_network(model: Model) -> NeuralModel:
    """Return the model. Raises OptionError if it is no network."""
    if not isinstance(model, NeuralModel):
        raise OptionError(f"{model.name} is no network, which a model of transformers has to be")
    return model


def found(name: str | Path, options: Mapping[str, Any]) -> Path:
    """Return the directory of a model: ``name`` and the ``options`` of ``from_pretrained`` say where it is."""
    if not os.path.isdir(name):  # noqa: PTH112  unlike Path, it takes a name of any length
        where = {key: options.get(key) for key in ("revision", "token")}
        return find_directory(name, **where, local_files_only=bool(options.get("local_files_only")))
    return Path(name, options.get("subfolder", ""))


def default_generation(config: RevgenConfig) -> GenerationConfig:
    """Return the settings of ``generate``, which must not write the tokens that no text spells."""
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(**special, suppress_tokens=config.suppress_tokens)


def untrained(config: RevgenConfig) -> NeuralModel:
    """Return a model of revgen of this configuration, without a tokenizer: of that, a network needs the size alone."""
    kind, options = architecture_class(config.architecture), config.config or {}
    schema.check_options(kind.Config, options)
    numbers = cast(Tokenizer, range(config.vocab_size or 0))
    model = check_network(kind(config.architecture, config.level, kind.Config(**options), numbers))
    model.weights = {name: np.empty(shape, np.float32) for name, shape in model.weight_shapes().items()}
    return model


def first_weights(model: NeuralModel) -> Weights:
    """Return weights before training, which depend on the seed of PyTorch."""
    return model.init_params(np.random.default_rng(int(torch.randint(1 << 31, (), device="cpu"))))


def put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register a parameter by a dotted name, such as ``layers.0.W``, with the modules that it takes."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(leaf, parameter)


def text_begins(tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """Return where each row of tokens (time, batch) begins, after what the mask (batch, … + time) leaves out:
    (batch,)."""
    time = len(tokens)
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
