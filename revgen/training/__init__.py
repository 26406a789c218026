"""Training: one loop for all neural models, its schedule, its history and its checkpoints."""
