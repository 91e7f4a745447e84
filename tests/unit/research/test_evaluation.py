from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.models.test_market_regime import REGIME, panel, samples
from tradsys.models.ensembles.regime_pooled import RegimePooled
from tradsys.models.linear import LogisticRegression
from tradsys.research.sections.importance import permutation_importance


class Watched:
    """A fitted model in a bundle's place that keeps what it answered."""

    def __init__(self, model):
        self.model, self.lookback, self.reported = model, model.lookback, []

    def predict(self, table, rows):
        self.reported.append(self.model.predict_proba(table, rows))
        return self.reported[-1], self.reported[-1]


@pytest.mark.parametrize("market", ["SPY", None], ids=["reads the market", "reads its rows alone"])
def test_windows_of_their_own_answer_as_the_whole_table_does(market):
    """The first question is asked unchanged; then the one column that tells must matter most."""
    table, wild = panel()
    train, valid = samples(table, wild)
    line = LogisticRegression(C=1.0, lookback=4)
    done = (RegimePooled(line, REGIME, 10.0) if market else line).fit(train, valid)
    watched = Watched(done)
    bundle = SimpleNamespace(primary=watched, features=SimpleNamespace(market_symbol=market))
    out = permutation_importance(bundle, valid, 3, seed=0)
    picked = np.unique(np.linspace(0, len(valid) - 1, 400).astype(int))
    np.testing.assert_array_equal(watched.reported[0], done.predict_proba(table, valid.rows[picked]))
    if market:
        assert out[0]["name"] == "signal"
        assert out[0]["value"] > 0.05
        assert abs(out[1]["value"]) < 0.02
