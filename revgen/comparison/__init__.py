"""Comparisons of models: training, the report, its charts and its graphs."""
