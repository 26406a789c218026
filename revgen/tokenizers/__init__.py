"""From text to token ids and back, exactly: characters, words, subwords."""

from revgen.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
