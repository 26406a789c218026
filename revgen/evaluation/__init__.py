"""Evaluation: the likelihood, surprisal, attention weights and embeddings of texts."""
