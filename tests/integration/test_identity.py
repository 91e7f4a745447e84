"""Two studies of one name in two folders are two, whatever they share."""

import pytest

from tests.integration.conftest import inside
from tests.integration.test_tune import LOGISTIC
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.research.sweeps.search_space import SweepError
from tradsys.tune import work


def test_studies_of_one_name_in_two_folders_are_two_in_a_shared_ledger(tmp_path):
    ledger = tmp_path / "shared.db"
    asked = [*LOGISTIC, "n_trials=1", "study=s", f"paths.ledger={ledger}"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with inside(tmp_path / name):
            work(asked)
            work(asked)  # the same command goes on, and enters nothing again
    rows = TrialLedger(ledger).entries()
    assert [row["run"] for row in rows] == ["runs/tune/s/trials/00000"] * 2
    assert len({row["run_uuid"] for row in rows}) == 2
    assert not TrialLedger(ledger).verify()
    with inside(tmp_path / "b"), pytest.raises(SweepError, match="belongs to another study of the name 's'"):
        work([*asked, "storage=sqlite:///elsewhere.db"])
