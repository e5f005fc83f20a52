"""Figures of runs, scores and traces."""
