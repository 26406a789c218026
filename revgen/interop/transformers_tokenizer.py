"""A tokenizer of revgen as a tokenizer of the library ``transformers``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizer

from revgen import schema
from revgen.files import read_file
from revgen.hub import find_directory
from revgen.registry import tokenizers
from revgen.storage import MAX_TOKENIZER_BYTES, read_config, read_tokenizer
from revgen.tokenizers import Tokenizer
from revgen.tokenizers.tokenizer import SPECIAL_TOKENS

BOS, EOS, UNK = SPECIAL_TOKENS
TOKENIZER_CONFIG = "tokenizer_config.json"


class RevgenTokenizer(PreTrainedTokenizer):
    """A tokenizer of revgen. ``<s>`` starts a document; ``</s>`` ends it, and is also the padding token.

    ``encode`` adds ``<s>`` before each text. A text never contains special tokens: ``"<s>"`` is three characters.
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, tokenizer: Tokenizer, **options: Any) -> None:
        self.revgen_tokenizer = tokenizer
        self.token_to_id = {token: i for i, token in enumerate(tokenizer.vocabulary)}
        for file in ("vocab_file", "tokenizer_file"):  # arguments for other tokenizers
            options.pop(file, None)
        defaults = {
            "bos_token": BOS,
            "eos_token": EOS,
            "unk_token": UNK,
            "pad_token": EOS,
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
        """Load the tokenizer of a model directory, a repository on the Hub or a pretrained model.

        A directory with only the files that the tokenizer's ``save_pretrained`` wrote is enough. ``options`` are
        passed to ``PreTrainedTokenizer.from_pretrained``.
        """
        directory = find_model_directory(pretrained_model_name_or_path, options)
        config_file = directory / TOKENIZER_CONFIG
        level = str(schema.read_json(config_file).get("level")) if config_file.exists() else ""
        if level in tokenizers and (file := directory / tokenizers.get(level).file).exists():
            tokenizer = tokenizers.get(level).from_bytes(read_file(file, MAX_TOKENIZER_BYTES))
        else:
            tokenizer = read_tokenizer(directory, read_config(directory))
        options = {"added_tokens_decoder": {}} | options if not config_file.exists() else options
        loaded: RevgenTokenizer = super().from_pretrained(str(directory), tokenizer=tokenizer, **options)
        return loaded

    @property
    def vocab_size(self) -> int:
        return len(self.revgen_tokenizer)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.token_to_id)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return [self.revgen_tokenizer.vocabulary[i] for i in self.revgen_tokenizer.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.token_to_id.get(token, self.revgen_tokenizer.unk_id)

    def _convert_id_to_token(self, index: int) -> str:
        return self.revgen_tokenizer.vocabulary[index]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens; special tokens appear by name."""
        runs = groupby(tokens, SPECIAL_TOKENS.__contains__)
        return "".join(
            "".join(run) if is_special else self.revgen_tokenizer.decode(map(self._convert_token_to_id, run))
            for is_special, run in runs
        )

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the tokenizer's file, as in a model directory, and return its path."""
        file = Path(save_directory) / f"{filename_prefix or ''}{self.revgen_tokenizer.file}"
        file.write_bytes(self.revgen_tokenizer.to_bytes())
        return (str(file),)


def find_model_directory(name: str | Path, options: Mapping[str, Any]) -> Path:
    """Return the directory of a model.

    ``name`` is a directory, a repository on the Hub or a pretrained model. ``options`` are the options of
    ``from_pretrained``, such as ``revision`` and ``subfolder``.
    """
    if not os.path.isdir(name):  # noqa: PTH112  unlike Path, it accepts a name of any length
        hub_options = {key: options.get(key) for key in ("revision", "token")}
        return find_directory(name, **hub_options, local_files_only=bool(options.get("local_files_only")))
    return Path(name, options.get("subfolder", ""))
