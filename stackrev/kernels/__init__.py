"""Compiled kernels, one folder for each kind of device."""
