"""What others may have written into a study's database is refused before it names a winner."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from tradsys.research.sweeps.contents import check_contents
from tradsys.research.sweeps.search_space import SweepError

ABOUT = {
    "uuid": "a1", "overrides": ["model=logistic"], "space": {}, "seeds": [1], "parent": None, "code_sha": "0a1b+dirty",
    "begun": "2026-01-01T00:00:00+00:00", "identity": {"data_digest": "0", "space_digest": "0", "config_digest": "0"},
}  # fmt: skip
TRIAL = {
    "place": 0, "share_of_machine": 1.0, "price_per_hour": None, "worker": "a:1", "drawn": True, "errors": [],
    "skills": [[0.1], [0.2]], "mean_skill": 0.15, "lower_bound": 0.05, "spread_folds": 0.05, "spread_seeds": None,
    "skill_over_base_rate": 0.1, "failed_share": 0.0, "block_gains": [0.1, -0.1], "fit_seconds": 0.5, "seconds": 1.0,
    "peak_mb": 400.0, "n_parameters": None, "checkpoints_used": 0,
}  # fmt: skip
QUEUED = ("place", "share_of_machine", "price_per_hour", "worker", "drawn")
RANGES = {"model.C": FloatDistribution(0.1, 10.0), "model.kind": CategoricalDistribution(("a", "b"))}


def study(about=(), trial=(), params=(), direction="maximize"):
    made = optuna.create_study(direction=direction)
    for key, value in (ABOUT | dict(about)).items():
        if value is not ...:
            made.set_user_attr(key, value)
    attributes = {key: value for key, value in (TRIAL | dict(trial)).items() if value is not ...}
    made.add_trial(
        optuna.create_trial(
            params={"model.C": 1.0, "model.kind": "a"}, distributions=RANGES, value=0.15, user_attrs=attributes
        )
    )
    (one,) = made.trials
    one._params |= dict(params)
    return made, [one]


def test_what_tune_writes_is_taken():
    check_contents(*study())
    check_contents(*study(about=dict.fromkeys(ABOUT, ...)))  # a study that has only been made
    check_contents(*study(trial=as_result()))


def as_result(**changed):
    """The attributes of a trial with its figures as one of them, and those figures changed."""
    figures = {k: v for k, v in TRIAL.items() if k not in QUEUED} | {"curve": [[0, 0.1], [2, 0.2]]} | changed
    return dict.fromkeys(set(TRIAL) - set(QUEUED), ...) | {"result": {k: v for k, v in figures.items() if v is not ...}}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"mean_skill": 0.2}, "mean_skill"),
        ({"lower_bound": ...}, "lacks lower_bound"),
        ({"peak_mb": "x"}, "peak_mb"),
        ({"skills": [[0.3], [0.4]], "mean_skill": 0.35}, "its value"),
        *(({"curve": curve}, "curve") for curve in ("x", [0.1], [[0]], [[-1, 0.1]], [[0, float("nan")]], [[0, 1, 2]])),
    ],
)
def test_figures_within_a_result_are_checked_as_those_on_their_own(changed, why):
    with pytest.raises(SweepError, match=why):
        check_contents(*study(trial=as_result(**changed)))


def test_a_result_is_a_mapping_and_names_no_slot():
    with pytest.raises(SweepError, match="result="):
        check_contents(*study(trial=as_result() | {"result": [1]}))
    with pytest.raises(SweepError, match="lacks place"):
        check_contents(*study(trial=as_result(place=0) | {"place": ...}))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("identity", ["x", ["a"], {}, {"data_digest": 1}]), ("overrides", ["a=1", [1], None, ...]),
        ("space", [[], None]),
        ("seeds", [1, ["a"], [-1], [True], ...]), ("parent", [0]), ("begun", ["yesterday", 3, ...]),
        ("code_sha", [None, "x\n_target_: os.system", "\x1b[31m", "", ...]), ("uuid", ["../x", 1]),
    ],
)  # fmt: skip
def test_attributes_of_a_study_have_their_kind(key, values):
    for value in values:
        with pytest.raises(SweepError, match=key):
            check_contents(*study(about={key: value}))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("place", ["0", None, [], -1, 1.5, True]), ("mean_skill", ["x", float("nan"), 1e300, 0.5, None, ...]),
        ("lower_bound", ["x", [[1]], float("inf"), 0.16, None, ...]),
        ("skills", ["x", [], [[]], [[0.1], [0.1, 0.2]], None]),
        ("failed_share", ["x", None, ...]), ("errors", ["x", [1]]), ("block_gains", [[None], 1]), ("worker", [1]),
        ("share_of_machine", [None, "1", -1]), ("price_per_hour", ["1", -1]), ("n_parameters", [1.5]), ("drawn", [1]),
    ],
)  # fmt: skip
def test_attributes_of_a_trial_have_their_kind_and_its_figures_agree(key, values):
    for value in values:
        with pytest.raises(SweepError, match=key):
            check_contents(*study(trial={key: value}))


@pytest.mark.parametrize(
    "params", [{"model.C": 1e300}, {"model.C": float("nan")}, {"model.C": "x"}, {"model.kind": "c"}]
)
def test_parameters_lie_in_their_own_ranges(params):
    with pytest.raises(SweepError, match="outside its own range"):
        check_contents(*study(params=params))


def test_a_study_that_looks_for_the_worst_is_refused():
    with pytest.raises(SweepError, match="it minimises"):
        check_contents(*study(direction="minimize"))


@pytest.mark.parametrize("values", [[float("inf")], [1e300], [0.1, 0.2], []])
def test_a_finished_trial_has_one_figure_for_each_objective(values):
    made, (one,) = study()
    one._values = values
    with pytest.raises(SweepError, match="trial 0: it is finished, with the values"):
        check_contents(made, [one])


def test_a_study_without_a_direction_is_damaged(monkeypatch):
    made, trials = study()
    monkeypatch.setattr(type(made), "directions", [])
    with pytest.raises(SweepError, match="it minimises"):
        check_contents(made, trials)


SPACE = {
    "model.C": {"type": "log", "low": 0.1, "high": 10.0}, "model.kind": {"type": "categorical", "choices": ["a", "b"]},
    "model.depth": {"type": "int", "low": 1, "high": 3, "when": {"model.kind": "b"}},
}  # fmt: skip


def test_a_finished_trial_has_the_parameters_of_the_space():
    check_contents(*study(about={"space": SPACE}))
    for space in ({"model.C": SPACE["model.C"]}, SPACE | {"model.x": SPACE["model.C"]}):
        with pytest.raises(SweepError, match="parameters"):
            check_contents(*study(about={"space": space}))
    with pytest.raises(SweepError, match=r"model\.depth"):
        check_contents(*study(about={"space": SPACE}, params={"model.kind": "b"}))


@pytest.mark.parametrize("space", [{}, SPACE])
def test_a_parameter_without_a_name_is_refused(space):
    made, (one,) = study(about={"space": space})
    one._params[None], one._distributions[None] = 1.0, RANGES["model.C"]
    with pytest.raises(SweepError, match="called None"):
        check_contents(made, [one])


@pytest.mark.parametrize("values", [[0.1], [0.15 + 1e-6]])
def test_the_value_of_a_trial_is_that_of_its_skills(values):
    made, (one,) = study()
    one._values = values
    with pytest.raises(SweepError, match="its value 0"):
        check_contents(made, [one])


@pytest.mark.parametrize("curve", [{"x": 0.1}, {0: "x"}, {-1: 0.1}, {0.5: 0.1}, {0: float("nan")}, {0: None}])
def test_what_a_trial_reports_are_figures_after_steps(curve):
    made, (one,) = study()
    one.intermediate_values = {0: 0.1, 1: -0.2}
    check_contents(made, [one])
    one.intermediate_values = curve
    with pytest.raises(SweepError, match="it reports"):
        check_contents(made, [one])


def test_a_finished_trial_without_its_slot_is_not_left_out():
    with pytest.raises(SweepError, match="lacks place"):
        check_contents(*study(trial={"place": ...}))


def test_trials_are_numbered_from_zero():
    made, (one,) = study()
    one.number = 10**12
    with pytest.raises(SweepError, match="numbered"):
        check_contents(made, [one])
