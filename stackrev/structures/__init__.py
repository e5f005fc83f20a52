"""The neural stack and the recurrence on it: equations, steps and states."""
