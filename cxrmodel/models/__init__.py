"""The networks: a variational autoencoder without skip connections and a classifier.

On a CPU convolutions run through operators that are private to PyTorch; `plain_convolutions` turns
them off, to export a network or on request.
"""

from cxrmodel.models.convolutions import plain_convolutions

__all__ = ["plain_convolutions"]
