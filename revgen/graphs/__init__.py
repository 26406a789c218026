"""The computational graphs of models, and their drawings."""
