"""Training: one loop for all neural models, with its schedule, callbacks and checkpoints."""
