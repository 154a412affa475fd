"""edgekit: an edge-deployment compiler for PyTorch vision models.

Nothing is computed at import; torch loads only when a command needs it.
"""

__version__ = "0.1.0"
