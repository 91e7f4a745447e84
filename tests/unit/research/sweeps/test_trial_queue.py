from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import TrialState

from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.storage import PULSE, open_storage
from tradsys.research.sweeps.sweep import budget_of
from tradsys.research.sweeps.trial_queue import MOST_LOST, PLACE, PRICE, SHARE, WORKER, Budget, TrialQueue, spent


@pytest.fixture(params=["sqlite", "journal"])
def make_queue(request, tmp_path):
    def make(n_trials=3, max_retries=1, **budget):
        storage = open_storage(f"{request.param}:///{tmp_path}/study", heartbeat=1, grace=2, patience_seconds=1)
        study = optuna.create_study(study_name="s", storage=storage.storage, direction="maximize", load_if_exists=True)
        return TrialQueue(study, storage, Budget(n_trials, **budget), max_retries)

    return make


def finish(queue, lease, value=0.5):
    assert queue.tell(lease, TrialState.COMPLETE, [value])


def test_places_are_filled_once_in_order_and_then_the_study_is_over(make_queue):
    queue, other = make_queue(), make_queue()
    claims = [q.take({"worker": "x"}) for q in (queue, other, queue)]
    assert [c.place for c in claims] == [0, 1, 2]
    assert queue.take({}) is None
    assert not queue.is_over()  # they still run, and may die
    for lease in claims:
        finish(queue, lease)
    assert other.is_over()


def test_a_dead_attempt_is_followed_by_one_of_the_same_parameters(make_queue):
    queue = make_queue()
    first = queue.take({})
    trial = optuna.Trial(queue.study, first.trial_id)
    drawn = trial.suggest_float("x", 0, 1)
    trial.set_user_attr("drawn", True)
    queue.storage.storage.set_trial_state_values(first.trial_id, TrialState.FAIL)
    again = queue.take({})
    assert (again.place, again.n_before) == (0, 1)
    assert optuna.Trial(queue.study, again.trial_id).suggest_float("x", 0, 1) == drawn
    # the first worker was only slow: what it says now does not count
    assert not queue.tell(first, TrialState.COMPLETE, [9.0])
    finish(queue, again)
    assert queue.study.best_value == 0.5


def test_of_attempts_added_at_one_moment_the_lowest_number_counts(make_queue):
    queue, other = make_queue(n_trials=1), make_queue(n_trials=1)
    for each in (queue, other):
        each._add(0, [], {})
    first = queue.take({})
    assert other.take({}) is None
    finish(queue, first)
    assert other.is_over()
    states = [(t.state, t.user_attrs.get("cause")) for t in queue.trials()]
    assert states == [(TrialState.COMPLETE, None), (TrialState.FAIL, "surplus")]


def test_a_trial_has_the_marks_of_the_worker_that_runs_it(make_queue):
    queue, marks = make_queue(n_trials=2), {WORKER: "a:1", SHARE: 0.5, PRICE: None}
    queue.take(marks)
    queue._add(1, queue.trials(), {WORKER: "dead:1", SHARE: 1.0, PRICE: 2.0})  # which ended before it could take it
    assert queue.take(marks).place == 1
    has = [{key: value for key, value in t.user_attrs.items() if key != PULSE} for t in queue.trials()]
    assert has == [{PLACE: 0} | marks, {PLACE: 1} | marks]


def test_a_trial_that_nobody_of_the_sweep_added_is_not_run(make_queue):
    queue = make_queue(n_trials=1)
    queue.study.enqueue_trial({"x": 0.1})
    lease = queue.take({})
    assert lease.place == 0
    finish(queue, lease)
    assert [t.user_attrs.get("cause") for t in queue.trials()] == ["surplus", None]


def test_a_place_that_always_dies_is_given_up_for_another(make_queue):
    queue = make_queue(n_trials=1, max_retries=1)
    for _ in range(2):
        lease = queue.take({})
        assert lease.place == 0
        queue.tell(lease, TrialState.FAIL, cause="error: boom")
    lease = queue.take({})
    assert lease.place == 1
    finish(queue, lease)
    assert queue.is_over()


def test_an_interrupted_attempt_is_no_death(make_queue):
    queue = make_queue(n_trials=1, max_retries=0)
    for _ in range(3):
        lease = queue.take({})
        assert lease.place == 0
        queue.tell(lease, TrialState.FAIL, cause="interrupted")


def test_too_many_dead_places_end_the_sweep(make_queue):
    queue = make_queue(n_trials=None, hours=1e6, max_retries=0)
    for _ in range(MOST_LOST + 1):
        queue.tell(queue.take({}), TrialState.FAIL, cause="error: boom")
    with pytest.raises(SweepError, match=r"11 trials died 1 times each"):
        queue.take({})


def test_hours_and_money_count_shares_of_machines(make_queue):
    queue = make_queue(n_trials=None, hours=2.0)
    marks = {SHARE: 0.5, PRICE: 3.0}
    finish(queue, queue.take(marks))
    finish(queue, queue.take(marks))
    trials = queue.study.get_trials()
    for trial in trials:
        trial.datetime_complete = trial.datetime_start + timedelta(hours=2)
    assert spent(trials) == pytest.approx((2.0, 6.0))
    assert queue.budget.is_spent(trials)
    assert not queue.budget.is_spent(trials[:1])
    assert Budget(money=6.0, price_per_hour=3.0).is_spent(trials)
    assert not Budget(money=6.1, price_per_hour=3.0).is_spent(trials)


def test_trials_that_a_worker_has_under_way_at_once_share_its_hours(make_queue):
    """Hours of a machine, from the first trial's start to the last one's end, whatever of them overlaps."""
    queue = make_queue(n_trials=5)
    marks = [{SHARE: 0.5, PRICE: 4.0, WORKER: worker} for worker in ("a", "a", "a", "a", "b")]
    for each in marks:
        finish(queue, queue.take(each))
    trials, begun = queue.study.get_trials(), datetime(2026, 1, 1)
    #        alone  inside it  beyond it  after a pause  another worker
    spans = [(0, 2), (1, 1.5), (1, 3), (5, 6), (0, 1)]
    for trial, (start, end) in zip(trials, spans, strict=True):
        trial.datetime_start, trial.datetime_complete = (begun + timedelta(hours=at) for at in (start, end))
    assert spent(trials) == pytest.approx((0.5 * (3 + 1 + 1), 4.0 * 0.5 * (3 + 1 + 1)))
    assert spent(trials[::-1]) == spent(trials)


def test_a_claim_counts_deaths_apart_from_interruptions(make_queue):
    queue = make_queue(n_trials=1, max_retries=5)
    for cause, n_died in (("interrupted", 0), ("error: boom", 0), ("interrupted", 1), ("", 1)):
        lease = queue.take({})
        assert lease.n_died == n_died
        queue.tell(lease, TrialState.FAIL, cause=cause)
    assert (queue.take({}).n_before, queue.take({})) == (4, None)


def test_fewer_attempts_than_none_are_refused():
    with pytest.raises(SweepError, match="max_retries=-1; it counts"):
        budget_of({"max_retries": -1, "n_trials": 1})


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "no budget"),
        ({"n_trials": 0}, "above 0"),
        ({"money": 1}, "price"),
        ({"n_trials": 1, "price_per_hour": -1.0}, "price_per_hour=-1.0; a price is above 0"),
    ],
)
def test_a_budget_that_never_ends_or_begins_is_refused(limits, said):
    with pytest.raises(SweepError, match=said):
        Budget(**limits)


def test_places_survive_a_worker_that_takes_ones_while_another_reads(make_queue):
    queue = make_queue(n_trials=2)
    queue._add(0, [], {})
    stale = queue.trials()  # what a slower worker saw before the place was taken
    lease = queue.take({})
    assert queue._lease(stale[0]._trial_id, stale[0].user_attrs, {}) is None
    assert [t.user_attrs[PLACE] for t in queue.trials() if t.state == TrialState.RUNNING] == [lease.place]
