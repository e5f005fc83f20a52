"""Figures of runs, scores, searches and traces, from data to a matplotlib `Figure`; nothing here touches a file.

Each module draws one kind of data; `style` has what they share, and turns a figure into the bytes of a file. Figures
can be read in print and with any colour vision: the colours are Okabe and Ito's, a second mark tells whatever a colour
tells, and lines carry their names. The same data gives the same bytes for the same matplotlib, whatever the user's own
matplotlib settings are.
"""

from stackrev.figures import learning, lengths, ranking, search, style, traces
from stackrev.figures.style import FORMATS, render, require

__all__ = ["FORMATS", "learning", "lengths", "ranking", "render", "require", "search", "style", "traces"]
