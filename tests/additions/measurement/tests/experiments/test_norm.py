"""The norm of a run's weights."""

import pytest
from stackrev.experiments.measurements.norm import NORM

from stackrev.kinds.rnn import RNNConfig
from stackrev.models import build
from stackrev.tasks import REVERSAL


def test_the_norm_is_that_of_all_weights():
    model = build(RNNConfig(hidden_size=2, embedding_width=2))
    for parameter in model.parameters():
        parameter.data.fill_(2.0)
    count = sum(each.numel() for each in model.parameters())
    found = NORM.measure(model, REVERSAL, True, lambda symbols: None)
    assert found["norm"] == pytest.approx(2 * count**0.5)
