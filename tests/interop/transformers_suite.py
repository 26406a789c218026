"""The test suite of the library transformers, applied to networks of revgen. ``test_transformers_suite.py`` runs it.

It imports the package ``tests`` of the source distribution of transformers.
"""

from __future__ import annotations

import unittest
from importlib import import_module
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from revgen.interop.transformers import RevgenForCausalLM
from revgen.interop.transformers_config import RevgenConfig

common: Any = import_module("tests.test_modeling_common")
generation: Any = import_module("tests.generation.test_utils")

# The suite looks up here which classes take labels.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["revgen"] = "RevgenForCausalLM"

OPTIONS: dict[str, dict[str, Any]] = {
    "gru": {"hidden_size": 32},
    "lstm": {"hidden_size": 32, "tie_embeddings": False},
    "mingru": {"hidden_size": 32},
    "awd-lstm": {"hidden_size": 32, "embedding_size": 32},
    "mlp": {"hidden_size": 32},
    "transformer": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context": 24},
    "textgenrnn": {"hidden_size": 32, "embedding_size": 32},
    "graves-lstm": {"hidden_size": 32, "num_layers": 2},
}
FEATURE_SIZES = {"textgenrnn": 192, "graves-lstm": 64}
"""The number of features from which logits are computed, if it differs from the size of a layer."""


class ModelTester:
    """The helper object that the suite expects: it has a small configuration and makes a batch for it."""

    batch_size, seq_length, vocab_size = 3, 7, 99
    is_training = True
    num_hidden_layers = 2
    expected_num_hidden_layers = 1  # only the features from which logits are computed

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.hidden_size = FEATURE_SIZES.get(architecture, 32)

    def get_config(self) -> RevgenConfig:
        options = OPTIONS[self.architecture]
        return RevgenConfig(architecture=self.architecture, config=options, vocab_size=self.vocab_size)

    def prepare_config_and_inputs_for_common(self) -> tuple[RevgenConfig, dict[str, torch.Tensor]]:
        ids = common.ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Suite(common.ModelTesterMixin, generation.GenerationTesterMixin):  # type: ignore[misc]
    """The tests of the suite for one architecture."""

    architecture = ""
    all_model_classes = (RevgenForCausalLM,)
    pipeline_model_mapping: dict[str, Any] = {}
    has_attentions = False  # the networks return no attention weights
    test_resize_embeddings = False  # the tokenizer would no longer match
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        self.model_tester = ModelTester(self.architecture)

    def test_model_base_model_prefix(self) -> None:
        self.skipTest("the names of the arrays have no prefix, so there is no base model with different names")

    def test_left_padding_compatibility(self) -> None:
        self.has_attentions = True  # without attention, the suite assumes that padding is not supported
        super().test_left_padding_compatibility()

    def _check_hidden_states_for_generate(self, *args: Any, **options: Any) -> None:
        if self.architecture not in FEATURE_SIZES:
            super()._check_hidden_states_for_generate(*args, **options)


if not hasattr(generation.GenerationTesterMixin, "test_left_padding_compatibility"):
    del Suite.test_left_padding_compatibility

for name in OPTIONS:
    class_name = name.title().replace("-", "")
    globals()[class_name] = type(class_name, (Suite, unittest.TestCase), {"architecture": name, "__module__": __name__})
