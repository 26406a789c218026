"""Corpora: text from files or memory, document by document, and its token ids on disk."""

from revgen.corpus.readers import Corpus, read

__all__ = ["Corpus", "read"]
