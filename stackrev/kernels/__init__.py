"""Compiled kernels, one folder for each kind of device, and the choice between them and plain torch.

Importing this does not import torch.
"""

from stackrev.kernels.dispatch import available, describe, using

__all__ = ["available", "describe", "using"]
