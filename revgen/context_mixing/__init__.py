"""Context mixing: contexts, their counts, and the mixer; ``architectures.context_mixing`` explains the idea."""
