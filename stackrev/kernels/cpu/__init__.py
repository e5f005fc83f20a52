"""The compiled kernels of the CPU: the same results as plain torch, sooner. Importing this does not import torch.

`library.py` finds the compiled library, `calls.py` has the structs that it shares with Python, `operators.py` makes
torch operators of kernels, `ops.py` offers them to `kernels/dispatch.py`, and `stream.py` works without torch.
"""
