"""Corpora: documents from files or memory, their token ids on disk, and batches for training."""

from revgen.corpus.readers import Corpus, read

__all__ = ["Corpus", "read"]
