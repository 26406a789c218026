"""The configuration of a network for the library ``transformers``: the content of config.json.

It has a file of its own, as ``AutoConfig`` is imported while the classes of models are not there yet.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from revgen.tokenizers import Tokenizer


class RevgenConfig(PreTrainedConfig):
    """The entries of a model directory's config.json, and those that every model of ``transformers`` has.

    ``config`` are the options of the ``architecture``; ``vocab_size`` None is the number of tokens in ``tokenizer``.
    """

    model_type = "revgen"
    keys_to_ignore_at_inference = ["state"]

    architecture: str = "gru"
    level: str = "char"
    config: dict[str, Any] | None = None
    tokenizer: dict[str, Any] | None = None
    vocab_size: int | None = None
    suppress_tokens: list[int] = field(default_factory=lambda: [Tokenizer.bos_id, Tokenizer.unk_id])
    bos_token_id: int | None = Tokenizer.bos_id
    eos_token_id: int | list[int] | None = Tokenizer.eos_id
    pad_token_id: int | None = Tokenizer.eos_id

    def __post_init__(self, **options: Any) -> None:
        if self.vocab_size is None and self.tokenizer is not None:
            self.vocab_size = self.tokenizer.get("tokens")
        super().__post_init__(**options)

    @property
    def hidden_size(self) -> int | None:
        """Return the number of channels of a layer, as the options of the architecture give it."""
        return (self.config or {}).get("hidden_size")

    @property
    def num_hidden_layers(self) -> int | None:
        """Return the number of layers, as the options of the architecture give it."""
        return (self.config or {}).get("num_layers")
