"""How results are shown: numbers, tables, charts and progress, in a terminal and in notebooks."""
