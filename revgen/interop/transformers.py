"""A network as a model of the library ``transformers``, for its ``generate``, pipelines and trainers.

The network and the tokenizer are the model's own. This module adds the interface of ``transformers``. ``generate``
passes the network's state from step to step, as ``revgen.generation`` does, so no token is read twice.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, initialization as init
from transformers.utils import ModelOutput

from revgen import generation_file, schema
from revgen.architectures.neural import NeuralModel
from revgen.errors import OptionError
from revgen.files import is_rank_zero, write_atomically
from revgen.interop.transformers_config import RevgenConfig
from revgen.interop.transformers_tokenizer import RevgenTokenizer, find_model_directory
from revgen.model import Model, Weights
from revgen.networks.network import FunctionalModule
from revgen.ops import tree_map
from revgen.pending import CONFIG, GENERATION_CONFIG, WEIGHTS
from revgen.registry import architecture_class
from revgen.storage import load_directory, read_config, save, write_directory
from revgen.tokenizers import Tokenizer

FILE_ENTRIES = {"format_version", "tokenizer", "weights", "index", "metadata", "package"}
"""Entries of config.json that describe the files of a model directory of revgen."""

MAX_SHARD_SIZE = 1 << 50
"""A number of bytes that the weights never reach, so that ``save_pretrained`` writes them to one file."""


@dataclass
class RevgenOutput(ModelOutput):
    """The output of ``RevgenForCausalLM``.

    ``loss`` is the mean in nats per token if labels were given. ``logits`` are (batch, time, vocab). ``state`` is the
    network's state after the last token. ``hidden_states`` has, on request, one tensor (batch, time, features): the
    features from which the logits are computed.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: Any = None
    hidden_states: tuple[Tensor, ...] | None = None


class _FeatureNetwork(nn.Module):
    """A network that returns features (batch, time, features), logits (time, batch, vocab) and the next state."""

    def __init__(self, network: FunctionalModule) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        features, state = self.network.features(tokens, state)
        features = features.transpose(0, 1)  # the logits depend on the returned tensor, so it can get a gradient
        return features, self.network.logits(features.transpose(0, 1)), state


class RevgenForCausalLM(PreTrainedModel, GenerationMixin):
    """A network whose parameters have the names of the weights in a model directory.

    ``model`` is the model of revgen with weights and tokenizer. Without it, the network has the configuration
    ``config``, initial weights and no tokenizer. ``label`` is the label of all texts, for a model that was fitted with
    labels.
    """

    config_class = RevgenConfig
    _is_stateful = True  # a state cannot be rewound, as speculative decoding would need

    def __init__(self, config: RevgenConfig, model: NeuralModel | None = None, label: str | None = None) -> None:
        super().__init__(config)
        self.revgen_model = untrained_model(config) if model is None else copy.copy(model)
        self.tokenizer: Any = None if model is None else RevgenTokenizer(model.tokenizer, name_or_path=model.name)
        self.label_offset = self.revgen_model.label_offset(label)
        self.config.vocab_size = len(self.revgen_model.tokenizer)
        with torch.device("meta"):  # `run_network` uses the parameters of this module instead
            network = self.revgen_model.make_network()
        object.__setattr__(self, "network", network)  # the parameters of a submodule would have other names
        for name, shape in self.revgen_model.weight_shapes().items():
            register_parameter(self, name, nn.Parameter(torch.empty(shape)))
        self.post_init()
        self.generation_config = default_generation_config(config, model)

    network: FunctionalModule

    def _init_weights(self, module: nn.Module) -> None:
        """Fill all parameters with the weights of the model, or with random weights if there is no model."""
        if module is self:
            weights = initial_weights(self.revgen_model) if self.tokenizer is None else self.revgen_model.weights
            for name, array in weights.items():
                init.copy_(self.get_parameter(name), torch.tensor(np.asarray(array, np.float32)))

    def train(self, mode: bool = True) -> RevgenForCausalLM:
        super().train(mode)
        self.network.train(mode)
        return self

    def _replicate_for_data_parallel(self) -> RevgenForCausalLM:
        """Give each replica its own network, because replicas compute at the same time."""
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
        """Compute logits from ids (batch, time), from the start of documents or after a ``state``.

        ``attention_mask`` is 0 for padding on the left; zeros after the first token have no effect, because no token
        attends to later tokens. With a state, it may also have columns for the tokens before. ``labels`` (batch, time)
        are ids, or -100 for tokens that the loss ignores; the first token is not predicted. ``options`` are passed to
        the loss function. Raises OptionError for a row that is only padding, and for padding after a state.
        """
        tokens = input_ids.T + self.label_offset
        if state is None:
            logits, features, state = self.forward_padded(tokens, attention_mask)
        elif attention_mask is not None and text_starts(tokens, attention_mask).any():
            raise OptionError("attention_mask has padding between a state and the tokens that follow it")
        else:
            logits, features, state = self.run_network(tokens, state)
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

    def forward_padded(self, tokens: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor, Any]:
        """Run the network on rows that may have padding on the left; return the same as ``run_network``.

        Rows with the same amount of padding run together without it, so each row has the logits of an unpadded text.
        """
        if attention_mask is None or attention_mask[:, -len(tokens)].all():
            return self.run_network(tokens, None)
        starts = text_starts(tokens, attention_mask)
        rows, outputs, states = [], [], []
        for start in sorted(set(starts.tolist())):
            rows.append((starts == start).nonzero()[:, 0])
            *tensors, state = self.run_network(tokens[start:, rows[-1]], None)
            outputs.append([nn.functional.pad(tensor, (0, 0, start, 0)) for tensor in tensors])
            states.append(state)
        order = torch.cat(rows).argsort()
        logits, features = (torch.cat(tensors)[order] for tensors in zip(*outputs, strict=True))
        return logits, features, self._reorder_cache(pytree.tree_map(concatenate_states, *states), order)

    def run_network(self, tokens: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Return logits (batch, time, vocab), features (batch, time, features) and the next state.

        ``tokens`` are (time, batch). If ``state`` is None, documents start. The network runs with the parameters of
        this module.
        """
        parameters = {f"network.params.{i}": attrgetter(name)(self) for i, name in enumerate(self.network.names)}
        features, logits, state = torch.func.functional_call(_FeatureNetwork(self.network), parameters, (tokens, state))
        return logits.transpose(0, 1).contiguous(), features, state

    def get_input_embeddings(self) -> nn.Module:
        """Return a module whose weight is the embedding."""
        module = self.__dict__.setdefault("embedding_module", nn.Embedding(1, 1, device="meta"))
        module.weight = self.embedding
        module.num_embeddings, module.embedding_dim = module.weight.shape
        return cast(nn.Module, module)

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Use the weight of a module as the embedding."""
        self.__dict__["embedding_module"] = value
        self.embedding = value.weight

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **options: Any) -> nn.Module:
        """Return the embedding. Raises OptionError for a new size, which would not match the tokenizer."""
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
        """Return the arguments of ``forward``: the last token if there is a state, otherwise all tokens."""
        new_ids = input_ids if state is None else input_ids[:, -1:]
        return {
            "input_ids": new_ids,
            "attention_mask": attention_mask,
            "state": state,
            "use_cache": use_cache,
        } | kwargs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **options: Any
    ) -> dict[str, Any]:
        """Pass the state to the next step."""
        if outputs.state is not None:
            model_kwargs["state"] = outputs.state
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **options)
        return updated

    def _reorder_cache(self, state: Any, rows: Tensor) -> Any:
        """Return the state of the given rows of the batch, in their order. Beam search calls this."""
        return tree_map(lambda array: array.index_select(0, rows), state)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Return False: the state is the cache, so ``generate`` does not create one."""
        return False

    def to_numpy(self) -> Weights:
        """Return the current weights as NumPy arrays."""
        return {n: p.detach().float().cpu().numpy().copy() for n, p in self.named_parameters()}

    def to_revgen(self) -> NeuralModel:
        """Return the model of revgen with the current weights, which may have been trained here."""
        if self.tokenizer is None:
            raise OptionError("a model that was created from a configuration has no tokenizer, which revgen needs")
        model, weights = copy.copy(self.revgen_model), self.to_numpy()
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
        """Write a model directory with the current weights, for ``revgen.load`` and ``from_pretrained``.

        ``options`` are passed to ``PreTrainedModel.save_pretrained``, except that ``max_shard_size`` is ignored: all
        weights are in one file.
        """
        directory = Path(save_directory)
        with TemporaryDirectory() as temporary:
            super().save_pretrained(
                temporary, is_main_process, state_dict, **(options | {"max_shard_size": MAX_SHARD_SIZE})
            )
            if not (is_main_process and is_rank_zero()):
                return
            files = {path.name: path.read_bytes() for path in Path(temporary).iterdir()}
        if WEIGHTS in files:  # not if only an adapter is saved
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

        ``options`` are passed to ``PreTrainedModel.from_pretrained``. Raises OptionError for a model that is not a
        network, and the errors of ``revgen.load``.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, **options)
        directory = find_model_directory(pretrained_model_name_or_path, options)
        model = None
        if "format_version" in schema.read_json(directory / CONFIG):
            model = load_directory(directory)
            check_network(model)
        with TemporaryDirectory() as temporary:
            source = directory
            if model is not None and read_config(directory)["weights"].get("dtype") == "int8":
                source = save(model, Path(temporary) / directory.name)  # which transformers can read
            loaded = super().from_pretrained(str(source), model, label, **options)
        lm = loaded[0] if options.get("output_loading_info") else loaded
        if options.get("generation_config") is None:
            defaults = default_generation_config(lm.config, model)
            if (directory / GENERATION_CONFIG).exists():  # it may have been written by hand
                lm.generation_config.update(**defaults.to_dict(), defaults_only=True)
            else:
                lm.generation_config = defaults
        return loaded


def check_network(model: Model) -> NeuralModel:
    """Return the model. Raises OptionError if it is not a network."""
    if not isinstance(model, NeuralModel):
        raise OptionError(f"{model.name} is not a network, so it cannot become a model of transformers")
    return model


def default_generation_config(config: RevgenConfig, model: Model | None) -> GenerationConfig:
    """Return the defaults of ``generate``: those of the model, without the tokens that no text contains."""
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    own = generation_file.to_entries(model) if model is not None and model.generation_config else {}
    return GenerationConfig(**(own | special | {"suppress_tokens": config.suppress_tokens}))


def untrained_model(config: RevgenConfig) -> NeuralModel:
    """Return a model of revgen with this configuration and uninitialized weights.

    A range of ids replaces the tokenizer, because a network needs only the size of the vocabulary.
    """
    model_class, options = architecture_class(config.architecture), config.config or {}
    schema.check_options(model_class.Config, options)
    vocabulary = cast(Tokenizer, range(config.vocab_size or 0))
    model = check_network(model_class(config.architecture, config.level, model_class.Config(**options), vocabulary))
    model.weights = {name: np.empty(shape, np.float32) for name, shape in model.weight_shapes().items()}
    return model


def initial_weights(model: NeuralModel) -> Weights:
    """Return random weights, with a seed from PyTorch's random number generator."""
    return model.init_params(np.random.default_rng(int(torch.randint(1 << 31, (), device="cpu"))))


def register_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register a parameter with a dotted name, such as ``layers.0.W``, and create the submodules on its path."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(leaf, parameter)


def text_starts(tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the position of the first token of each row that is not padding, (batch,).

    ``tokens`` are (time, batch). The last ``time`` columns of ``attention_mask`` belong to them. Raises OptionError for
    a row that is only padding.
    """
    time = len(tokens)
    starts = (attention_mask[:, -time:].cumsum(1) == 0).sum(1)
    if (starts == time).any():
        raise OptionError(f"attention_mask has a row that is only padding: {(starts == time).nonzero()[0, 0]}")
    return starts


def concatenate_states(*arrays: Any) -> Any:
    """Concatenate the same array of several states along the batch axis; return None if the arrays are None.

    The state of a transformer has fewer keys after a shorter text. The missing keys become zeros at the front, which
    the attention mask excludes.
    """
    if not isinstance(arrays[0], Tensor):
        return arrays[0]
    sizes = [max(column) for column in zip(*(array.shape[1:] for array in arrays), strict=True)]
    padded = []
    for array in arrays:
        missing = [size - array_size for size, array_size in zip(sizes, array.shape[1:], strict=True)]
        padded.append(nn.functional.pad(array, [n for count in reversed(missing) for n in (count, 0)]))
    return torch.cat(padded)
