"""Generation: the sampler, and the loop that decodes text from any model."""
