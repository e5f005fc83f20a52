"""The greatest errors of the activations, in units of 2^-24, as powers of two that none exceeds.

Written by scripts/measure_activations.py, which has compared every float32 number; docs/results/activations.json has
the errors themselves.
"""

SIGMOID_ERROR = 2.0
TANH_ERROR = 4.0
