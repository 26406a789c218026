"""The configuration of a network for the library ``transformers``: the content of config.json.

It is a separate module because ``AutoConfig`` is imported before the model classes of ``transformers`` exist.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from revgen.tokenizers import Tokenizer


class RevgenConfig(PreTrainedConfig):
    """The entries of a model directory's config.json, and the entries that every configuration of ``transformers`` has.

    ``config`` has the options of the ``architecture``. If ``vocab_size`` is None, it is the number of tokens in the
    entry ``tokenizer``.
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
        """The size of a layer, or None if the options do not give it."""
        return (self.config or {}).get("hidden_size")

    @property
    def num_hidden_layers(self) -> int | None:
        """The number of layers, or None if the options do not give it."""
        return (self.config or {}).get("num_layers")
