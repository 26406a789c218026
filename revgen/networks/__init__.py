"""Networks: the layers around a cell and other networks, their PyTorch modules, and compiled generation."""
