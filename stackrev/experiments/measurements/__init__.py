"""What is measured of a run after its training.

A new measurement is a file here and an entry of `MEASUREMENTS`. The entry's name is a key of an experiment's
`setting.json`, under which stands what it is asked to measure, and of each seed's line, under which stands what it
found.
"""

from __future__ import annotations

from stackrev.experiments.measurements.base import Measurement
from stackrev.experiments.measurements.exact import EXACT
from stackrev.experiments.measurements.proof import PROOF
from stackrev.experiments.measurements.runs_of_each import RUNS_OF_EACH
from stackrev.experiments.measurements.unseen import UNSEEN

MEASUREMENTS: dict[str, Measurement] = {
    "exact": EXACT,
    "runs_of_each": RUNS_OF_EACH,
    "proof": PROOF,
    "unseen": UNSEEN,
}
"""Everything that can be measured, by name."""
