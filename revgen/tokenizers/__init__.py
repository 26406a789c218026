"""Lossless tokenizers of three levels: characters, words, and subwords."""

from revgen.tokenizers.char import CharTokenizer
from revgen.tokenizers.subword import SubwordTokenizer
from revgen.tokenizers.tokenizer import Tokenizer
from revgen.tokenizers.word import WordTokenizer

__all__ = ["CharTokenizer", "SubwordTokenizer", "Tokenizer", "WordTokenizer"]
