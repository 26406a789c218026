"""Conversion of a model to a model of the library ``transformers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revgen.architectures.neural import NeuralModel
from revgen.arguments import validate_call
from revgen.errors import MissingExtraError, OptionError
from revgen.language_model import LanguageModel
from revgen.storage import configuration

if TYPE_CHECKING:
    from revgen.interop.transformers import RevgenForCausalLM


@validate_call
def to_transformers(model: LanguageModel, *, label: str | None = None) -> RevgenForCausalLM:
    """Convert a network to a ``PreTrainedModel`` with ``generate`` and the attribute ``tokenizer``.

    The result has a copy of the weights and is on the model's device. ``label`` is the label of all texts that it reads
    and generates, for a model that was fitted with labels. Raises OptionError if the model is not a network, and
    MissingExtraError without the package ``transformers``.
    """
    if not isinstance(model, NeuralModel):
        raise OptionError(f"{model.name} is not a network, so it cannot become a model of transformers")
    try:
        from revgen.interop.transformers import RevgenForCausalLM
        from revgen.interop.transformers_config import RevgenConfig
    except MissingExtraError:  # PyTorch is missing
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"to_transformers needs the package transformers ({error}): pip install 'revgen[transformers]'"
        ) from None
    config = RevgenConfig(name_or_path=model.name, vocab_size=len(model.tokenizer), **configuration(model))
    converted = RevgenForCausalLM(config, model, label)
    converted.to(model.device).eval()
    return converted
