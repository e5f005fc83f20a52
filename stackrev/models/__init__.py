"""Models that learn to transduce strings, behind one interface. Imports torch only when one is built or loaded."""

from stackrev.models.building import build as build
from stackrev.models.loading import Checkpoint as Checkpoint
from stackrev.models.loading import load as load
from stackrev.models.loading import open_decoder as open_decoder
from stackrev.models.loading import require_task as require_task
