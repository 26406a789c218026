"""From text to token ids and back, exactly: characters, words, subwords."""

from revgen.tokenizers.char import CharTokenizer
from revgen.tokenizers.subword import SubwordTokenizer
from revgen.tokenizers.tokenizer import Tokenizer
from revgen.tokenizers.word import WordTokenizer

__all__ = ["CharTokenizer", "SubwordTokenizer", "Tokenizer", "WordTokenizer"]
