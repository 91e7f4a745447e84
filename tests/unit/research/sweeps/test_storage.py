import errno
import time

import optuna
import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial

from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.storage import Patience, is_disk_full, is_unreachable, open_storage


def locked():
    return StorageInternalError("x")


def full():
    error = StorageInternalError("x")
    error.__cause__ = sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))
    return error


def test_a_storage_that_comes_back_is_waited_for():
    answers = iter([locked(), OSError(errno.EIO, "hiccup"), None])

    def work():
        if (error := next(answers)) is not None:
            raise error
        return "done"

    assert Patience("p", 5)(work) == "done"


def test_one_that_stays_away_is_one_error_that_names_it():
    def work():
        raise StorageInternalError("commit") from OSError("no route to host")

    with pytest.raises(
        SweepError, match=r"storage p cannot be reached for 0.3 s \(no route to host\); finished"
    ) as caught:
        Patience("p", 0.3)(work)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [full(), OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_not_waited_for(error):
    calls = []

    def work():
        calls.append(1)
        raise error

    with pytest.raises(SweepError, match="no space is left for p"):
        Patience("p", 60)(work)
    assert len(calls) == 1
    assert is_disk_full(error)
    assert not is_unreachable(error)


def test_a_bug_is_not_waited_for():
    with pytest.raises(KeyError):
        Patience("p", 60)(lambda: {}["x"])


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_silent_trial_is_failed_and_a_beating_one_is_not(kind, tmp_path):
    storage = open_storage(f"{kind}:///{tmp_path}/s", heartbeat=1, grace=2, patience_seconds=1)
    study = optuna.create_study(storage=storage.storage)
    study.add_trial(waiting := create_trial(state=TrialState.WAITING))
    study.add_trial(waiting)
    dead, alive = study.trials
    for trial in (dead, alive):
        storage.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    storage.beat(dead._trial_id, 0)
    storage.fail_dead_trials(study)
    with storage.alive(alive._trial_id):
        storage.beat(alive._trial_id, 0)
        deadline = time.monotonic() + 8
        while study.trials[0].state == TrialState.RUNNING and time.monotonic() < deadline:
            time.sleep(0.3)
            storage.fail_dead_trials(study)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.RUNNING]


@pytest.mark.parametrize("url", ["mysql://u@h/d", "redis://h", "sqlite", "file.db"])
def test_other_urls_are_refused(url):
    with pytest.raises(SweepError, match="no known URL"):
        open_storage(url, heartbeat=1, grace=2, patience_seconds=1)


def test_a_password_is_never_shown():
    pytest.importorskip("psycopg")
    with pytest.raises(SweepError, match=r"me:\*\*\*@127") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:9/x", heartbeat=1, grace=2, patience_seconds=0.2)
    assert "secret" not in str(caught.value)
