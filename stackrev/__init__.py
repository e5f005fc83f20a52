"""The differentiable neural stack, and the string-reversal experiment that goes with it."""
