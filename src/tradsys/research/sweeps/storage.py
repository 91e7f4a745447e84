"""Storage of a sweep's study: SQLite, a journal file or PostgreSQL by URL, with retries when it does not answer."""

import contextlib
import errno
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import optuna
import sqlalchemy as sa
import tenacity
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, fail_stale_trials, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool

from tradsys.core.database_url import database_url, shown_url
from tradsys.core.errors import no_room
from tradsys.core.masking import masked_text
from tradsys.core.received import one_line
from tradsys.research.sweeps.search_space import SweepError

LOG = logging.getLogger(__name__)
JOURNAL = "journal:///"
PULSE = "pulse"
# seconds a writer waits for another before SQLite says "database is locked"
BUSY_SECONDS = 60
Result = TypeVar("Result")


# SQLite's own messages
DAMAGED = (
    "not a database",
    "malformed",
    "no such table",
    "no such column",
    "corrupt",
    "unsupported file format",
    "could not decode",
)


@dataclass(frozen=True)
class RetryPolicy:
    """Retry policy: calls again, more and more slowly, until a storage answers.

    Then one SweepError. place: without password.
    """

    place: str
    seconds: float

    def __call__(self, work: Callable[[], Result]) -> Result:
        """The result of `work`. Only an unreachable storage is retried; a full disk is not."""
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_unreachable),
            stop=tenacity.stop_after_delay(self.seconds),
            wait=tenacity.wait_exponential_jitter(multiplier=0.1, max=10, jitter=0.1),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return waiting(work)
        except Exception as error:
            if (refused := no_room(error, self.place)) is not None:
                raise disk_full(refused, self.place) from error
            if _is_damaged(error):
                raise self.damaged(error) from error
            if not is_unreachable(error):
                raise
            raise SweepError(
                f"sweep: storage {self.place} cannot be reached for {self.seconds:g} s ({_cause(error)}); finished "
                "trials are kept there and finished folds in the study's folder; check it, then run the same command"
            ) from error

    def damaged(self, cause: BaseException | None) -> SweepError:
        """The error of a storage whose content optuna never wrote."""
        return SweepError(
            f"sweep: storage {self.place} is damaged or no study database ({one_line(_cause(cause))}); restore it from "
            "a copy, or give another storage="
        )

    def _tell(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            LOG.warning("storage %s does not answer (%s); trying again", self.place, _cause(state.outcome.exception()))


def is_unreachable(error: BaseException) -> bool:
    """Whether a retry may succeed.

    No connection, a locked or restarting database, a temporary disk error.
    """
    if no_room(error, "") is not None or _is_damaged(error):
        return False
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    known = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, StorageInternalError)
    return isinstance(error, (*known, OSError))


def _is_damaged(error: BaseException | None) -> bool:
    """Whether SQLite reports the file itself, or its tables and columns, as damaged: no retry will help."""
    while error is not None:
        text = str(error.orig).lower() if isinstance(error, sa.exc.DatabaseError) else ""
        if isinstance(error, UnicodeDecodeError) or any(words in text for words in DAMAGED):
            return True
        error = error.__cause__
    return False


def disk_full(refused: OSError, place: object) -> SweepError:
    """The error of a full disk, quota or file.

    place: used where the error names no file.
    """
    where = refused.filename or place
    what = f"{where} reached the size that this system allows a file (see ulimit -f)"
    return SweepError(
        f"sweep: {what if refused.errno == errno.EFBIG else f'no space is left for {where}'}; finished trials and "
        "folds are kept; free space, then run the same command"
    )


def _cause(error: BaseException | None) -> str:
    """The innermost reason on one line."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "orig", None) or error)
    return masked_text(text.strip().splitlines()[0]) if text.strip() else type(error).__name__


@dataclass(frozen=True, eq=False)
class StudyStorage:
    """An open storage with a heartbeat of its running trials.

    A database keeps heartbeats by its own clock. A journal file has none in Optuna, so here each running trial's
    `pulse` is counted up, and a reader that saw no change for the grace period, by its own clock, counts it as dead;
    a new reader therefore waits that long once. heartbeat, grace: seconds.
    """

    storage: BaseStorage
    place: str
    heartbeat: int
    grace: int
    patience: RetryPolicy
    _seen: dict[int, tuple[Any, float]] = field(default_factory=dict)

    @property
    def is_database(self) -> bool:
        """Whether the storage keeps heartbeats itself."""
        return not isinstance(self.storage, JournalStorage)

    def beat(self, trial_id: int, count: int) -> None:
        """Records a heartbeat of a trial's worker."""
        if self.is_database:
            self.storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        else:
            self.storage.set_trial_user_attr(trial_id, PULSE, count)

    def fail_dead_trials(self, study: optuna.Study) -> None:
        """Sets the running trials whose worker has died to FAIL."""
        if self.is_database:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                fail_stale_trials(study)
            return
        now = time.monotonic()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            pulse = trial.user_attrs.get(PULSE)
            before, since = self._seen.setdefault(trial.number, (pulse, now))
            if before != pulse:
                self._seen[trial.number] = (pulse, now)
            elif now - since > self.grace:
                with contextlib.suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def alive(self, trial_id: int) -> "Heartbeat":
        """Sends heartbeats for a trial inside a `with` block."""
        return Heartbeat(self, trial_id)


class Heartbeat:
    """A thread that sends heartbeats for one trial.

    A storage that does not answer is retried at the next beat.
    """

    def __init__(self, storage: StudyStorage, trial_id: int) -> None:
        self.storage, self.trial_id = storage, trial_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        count = 1
        while not self._stop.wait(self.storage.heartbeat):
            count += 1
            try:
                self.storage.beat(self.trial_id, count)
            except UpdateFinishedTrialError:  # marked as dead by another worker
                return
            except Exception as error:  # the trial goes on, and waits for the storage itself at its next report
                LOG.warning("no heartbeat to %s (%s)", self.storage.place, _cause(error))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def open_storage(url: str, *, heartbeat: int, grace: int, patience_seconds: float) -> StudyStorage:
    """Opens the study storage of a URL, created if new.

    `sqlite:///file`, `journal:///file` or `postgresql://user@host/name`. Raises SweepError: another kind of URL, a
    missing driver, or no answer for `patience_seconds`.
    """
    if heartbeat < 1 or grace <= heartbeat:
        raise SweepError(
            f"sweep: heartbeat_seconds={heartbeat}, grace_seconds={grace}; a beat takes 1 s or more and the grace must "
            "be longer, else live trials count as dead; fix them"
        )
    place = _checked_url(url)
    patience = RetryPolicy(place, patience_seconds)
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix("journal://") if url.startswith("journal:////") else url.removeprefix(JOURNAL))
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = patience(lambda: JournalStorage(JournalFileBackend(str(path))))
        return StudyStorage(journal, place, heartbeat, grace, patience)
    database = patience(lambda: _database(url, heartbeat, grace))
    return StudyStorage(get_storage(database), place, heartbeat, grace, patience)


def _checked_url(url: str) -> str:
    """The URL without its password; SweepError where it is none of the known kinds."""
    if url.startswith(JOURNAL):
        return url
    known = "give sqlite:///file.db, journal:///file.log or postgresql://user@host/name"
    if "://" not in url:
        raise SweepError(f"sweep: storage {masked_text(url)!r} is no known URL; {known}")
    parsed = database_url(url, "sweep: storage", SweepError)
    if parsed.drivername.split("+")[0] not in ("sqlite", "postgresql"):
        raise SweepError(f"sweep: storage {masked_text(url)!r} is no known URL; {known}")
    return shown_url(parsed)


def _database(url: str, heartbeat: int, grace: int) -> RDBStorage:
    parsed = database_url(url, "sweep: storage", SweepError)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    # no pool: a connection kept over a long fit is stale after it, and those of many pods use up a server's
    options: dict[str, Any] = {"poolclass": NullPool}
    if sqlite:
        options["connect_args"] = {"timeout": BUSY_SECONDS}
    with warnings.catch_warnings(), _made_once():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = RDBStorage(
            parsed.render_as_string(hide_password=False),
            engine_kwargs=options,
            heartbeat_interval=heartbeat,
            grace_period=grace,
        )
    if sqlite:
        # sqlite3 takes its write lock at the first write, so two workers could both read that a trial waits and both
        # take it (SQLAlchemy, SQLite dialect, "Enabling Non-Legacy SQLite Transactional Modes")
        sa.event.listen(storage.engine, "connect", _leave_begin_to_us)
        sa.event.listen(storage.engine, "begin", _begin_at_once)
    return storage


@contextlib.contextmanager
def _made_once() -> Iterator[None]:
    """Retries where several workers create the tables of a new database at once."""
    try:
        yield
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError) as error:
        raise StorageInternalError("another worker made the tables at the same moment") from error
    except RuntimeError as error:  # of optuna, about the version in the tables
        raise SweepError(
            f"sweep: the storage's tables are of another version of optuna ({one_line(error)}); install that version, "
            "restore the storage from a copy, or give another storage="
        ) from error
    except ImportError as error:
        raise SweepError(
            f"sweep: the storage needs the module {error.name}, which is not installed; pip install 'tradsys[postgres]'"
        ) from error


def _leave_begin_to_us(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def _begin_at_once(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
