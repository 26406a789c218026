"""The prompts of a request: texts or token ids, within the limits of the server."""

from __future__ import annotations

from typing import NamedTuple

from revgen.generation.healing import token_texts
from revgen.model import Model
from revgen.serve.errors import ServeError
from revgen.serve.limits import Limits
from revgen.serve.schema import Prompt


class EncodedPrompt(NamedTuple):
    """A prompt as a text and as ids, and whether the request gives it as a text."""

    text: str
    ids: list[int]
    is_text: bool


def encode_prompts(model: Model, prompt: Prompt, param: str, limits: Limits, n: int = 1) -> list[EncodedPrompt]:
    """Return the prompts of a request, each to be continued ``n`` times. Raises ServeError."""
    prompts = split_prompts(prompt)
    if not 1 <= len(prompts) * n <= limits.max_texts:
        name = "n" if 1 <= len(prompts) <= limits.max_texts else param
        raise ServeError(400, f"a request must have from 1 to {limits.max_texts} texts", param=name)
    maximum, chars_per_token = limits.max_prompt_tokens, token_texts(model.tokenizer).max_length
    shortest = max(len(item) / (chars_per_token if isinstance(item, str) else 1) for item in prompts)
    encoded = [] if shortest > maximum else [encode_prompt(model, item, param) for item in prompts]
    if shortest > maximum or max(len(prompt.ids) for prompt in encoded) > maximum:
        message = f"{param} may have at most {maximum} tokens"
        raise ServeError(400, message, param=param, code="context_length_exceeded")
    return encoded


def encode_prompt(model: Model, prompt: str | list[int], param: str) -> EncodedPrompt:
    """Return one prompt. Raises ServeError for ids that are not in the vocabulary."""
    tokenizer = model.tokenizer
    if isinstance(prompt, str):
        return EncodedPrompt(prompt, tokenizer.encode(prompt).tolist(), True)
    if not all(0 <= token < len(tokenizer) for token in prompt):
        raise ServeError(400, f"{param}: token ids must be from 0 to {len(tokenizer) - 1}", param=param)
    return EncodedPrompt(tokenizer.decode(prompt), prompt, False)


def split_prompts(prompt: Prompt) -> list[str | list[int]]:
    """Return the prompts of a request, each as a text or as token ids."""
    if isinstance(prompt, str):
        return [prompt]
    ids = [item for item in prompt if isinstance(item, int)]
    return [ids] if ids else [item for item in prompt if not isinstance(item, int)]
