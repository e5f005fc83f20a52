"""A GRU has the parameters that its configuration says."""

from stackrev.kinds.gru import GRUConfig

from stackrev.models import build


def test_the_shapes_are_those_of_the_model():
    config = GRUConfig(hidden_size=4, embedding_width=3, layers=2)
    assert {name: tuple(each.shape) for name, each in build(config).state_dict().items()} == config.shapes()
