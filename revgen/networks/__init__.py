"""Networks: what stands around a cell, as an equation and as a PyTorch module that trains it."""
