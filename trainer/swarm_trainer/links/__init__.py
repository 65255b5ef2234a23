"""How tensors travel between a particle and the synchronizer: one module for each backend."""
