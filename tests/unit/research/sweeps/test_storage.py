import contextlib
import errno
import sqlite3
import time

import optuna
import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial

from tradsys.core.errors import no_room
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.storage import RetryPolicy, is_unreachable, open_storage


def locked():
    return StorageInternalError("x")


def full(**of_driver):
    """What optuna makes of a database's own error."""
    own = sqlite3.OperationalError("database or disk is full")
    own.__dict__ |= of_driver or {"sqlite_errorcode": sqlite3.SQLITE_FULL}
    error = StorageInternalError("x")
    error.__cause__ = sa.exc.OperationalError("INSERT", {}, own)
    return error


def test_a_storage_that_comes_back_is_waited_for():
    answers = iter([locked(), OSError(errno.EIO, "hiccup"), None])

    def work():
        if (error := next(answers)) is not None:
            raise error
        return "done"

    assert RetryPolicy("p", 5)(work) == "done"


def test_one_that_stays_away_is_one_error_that_names_it():
    def work():
        raise StorageInternalError("commit") from OSError("no route to host")

    with pytest.raises(
        SweepError, match=r"storage p cannot be reached for 0.3 s \(no route to host\); finished"
    ) as caught:
        RetryPolicy("p", 0.3)(work)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [full(), full(sqlstate="53100"), OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "quota")],
    ids=["sqlite", "postgresql", "disk", "quota"],
)
def test_a_full_disk_is_not_waited_for(error):
    calls = []

    def work():
        calls.append(1)
        raise error

    with pytest.raises(SweepError, match="no space is left for p"):
        RetryPolicy("p", 60)(work)
    assert len(calls) == 1
    assert no_room(error, "p") is not None
    assert not is_unreachable(error)


def test_a_file_beyond_the_limit_of_the_system_is_not_waited_for_and_named():
    def work():
        raise OSError(errno.EFBIG, "File too large", "fit.json")

    with pytest.raises(SweepError, match=r"fit\.json reached the size that this system allows a file .*ulimit -f"):
        RetryPolicy("p", 60)(work)


def test_a_database_without_room_is_one_line_and_what_it_held_stays(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/s.db", heartbeat=1, grace=2, patience_seconds=60)
    study = optuna.create_study(storage=storage.storage)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0))

    def leave_no_page(connection, _record):
        connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0]}")

    engine = storage.storage._backend.engine if hasattr(storage.storage, "_backend") else storage.storage.engine
    sa.event.listen(engine, "connect", leave_no_page)

    def fill():
        for k in range(500):
            study.set_user_attr(f"key {k}", "x" * 1500)

    with pytest.raises(SweepError, match=r"no space is left for .*s\.db; finished trials and folds are kept"):
        storage.patience(fill)
    sa.event.remove(engine, "connect", leave_no_page)
    again = open_storage(f"sqlite:///{tmp_path}/s.db", heartbeat=1, grace=2, patience_seconds=1)
    kept = optuna.load_study(study_name=study.study_name, storage=again.storage)
    assert [trial.value for trial in kept.trials] == [1.0]
    kept.add_trial(create_trial(state=TrialState.COMPLETE, value=2.0))


def test_a_bug_is_not_waited_for():
    with pytest.raises(KeyError):
        RetryPolicy("p", 60)(lambda: {}["x"])


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


def test_tables_of_another_version_of_optuna_are_refused_in_one_line(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    open_storage(url, heartbeat=1, grace=2, patience_seconds=0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as base, base:
        base.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
    with pytest.raises(SweepError, match="another version of optuna") as refused:
        open_storage(url, heartbeat=1, grace=2, patience_seconds=0.1)
    assert "\n" not in str(refused.value)
