from dataclasses import replace

import numpy as np
import pytest

from tests.unit.research.sections.test_cpcv import experiment_of, prepared_with
from tradsys.core.tables import Fold
from tradsys.models.linear import LogisticRegression
from tradsys.research.sections.cpcv import _positions, _side_in_words


@pytest.mark.parametrize("sides", [(-1, 1), (0, 1), (-1, 0, 1)])
def test_a_path_takes_positions_on_the_labels_side_and_none_without_one(sides):
    """A label's return is in its own direction, so a short is 1 as well: the same positions but where the side is 0."""
    plain = prepared_with(2.0).samples
    side = np.random.default_rng(0).choice(np.array(sides), len(plain.table)).astype(np.float32)
    sided = replace(plain, table=plain.table.take(np.arange(len(plain.table)), {"side": side}))
    thirds = np.array_split(np.arange(len(plain)), 3)
    fold = Fold(*thirds)
    experiment = experiment_of(LogisticRegression())
    got = _positions(experiment, experiment.model, sided, fold)
    taken = side[sided.rows[fold.test]]
    assert (got[taken == 0] == 0).all()
    for s in (-1, 1):
        if s in sides:
            assert 0 < got[taken == s].mean() < 0.3
    assert set(got) == {0.0, 1.0}
    assert _side_in_words(plain) == "long"
    assert _side_in_words(sided).startswith("on the bundle's own side")
