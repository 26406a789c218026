"""Comparisons of models: the report, its charts and graphs."""
