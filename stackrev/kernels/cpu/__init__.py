"""The compiled kernels: the same results as plain torch, sooner. Importing this does not import torch.

`library.py` finds the compiled library, `ops.py` offers it to torch.
"""

from stackrev.kernels.cpu.library import available, describe

__all__ = ["available", "describe"]
