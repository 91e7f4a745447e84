import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradsys.research.sweeps.search_space import Parameter, SearchSpace, SweepError, leaves, overrides_of

CONDITIONAL = {
    "model.net.pooling": {"type": "categorical", "choices": ["last", "attention"]},
    "model.net.n_queries": {"type": "int", "low": 1, "high": 8, "when": {"model.net.pooling": "attention"}},
    "model.module.lr": {"type": "log", "low": 1e-5, "high": 1e-2},
}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (None, "the space is empty"),
        ({"a": {"type": "flaot", "low": 0, "high": 1}}, "type 'flaot'"),
        ({"a": {"type": "float", "low": 2, "high": 1}}, "low=2 is not below high=1"),
        ({"a": {"type": "float", "low": 1, "high": 1}}, "low=1 is not below high=1"),
        ({"a": {"type": "log", "low": 0, "high": 1}}, "low=0 on a log scale"),
        ({"a": {"type": "log", "low": 1, "high": 2, "step": 0.1}}, "a log scale has none"),
        ({"a": {"type": "float", "low": 0}}, "high=None"),
        ({"a": {"type": "float", "low": 0, "high": float("inf")}}, "finite"),
        ({"a": {"type": "int", "low": 0.5, "high": 2}}, "whole numbers"),
        ({"a": {"type": "int", "low": 1, "high": 3, "step": 5}}, "at most the range"),
        ({"a": {"type": "categorical"}}, "no choices"),
        ({"a": {"type": "categorical", "choices": [[1]]}}, "no plain values"),
        ({"a": {"type": "float", "low": 0, "hihg": 1}}, r"unknown keys \['hihg'\]"),
        ({"a": 3}, "3 is no mapping"),
        (CONDITIONAL | {"b": {"type": "int", "low": 1, "high": 2, "when": {"model.pooling": 1}}}, "did you mean"),
        (CONDITIONAL | {"b": {"type": "int", "low": 1, "high": 2, "when": {"model.net.pooling": "max"}}}, "never be"),
        (
            {
                "a": {"type": "int", "low": 1, "high": 2, "when": {"b": 1}},
                "b": {"type": "int", "low": 1, "high": 2, "when": {"a": 1}},
            },
            "are circular",
        ),
    ],
)
def test_a_bad_space_is_one_clear_error(entries, said):
    with pytest.raises(SweepError, match=said) as caught:
        SearchSpace.of(entries)
    assert "\n" not in str(caught.value)


def test_a_conditional_parameter_is_drawn_only_where_its_condition_holds():
    # listed before what it depends on: the order of the file does not matter
    space = SearchSpace.of(dict(reversed(CONDITIONAL.items())))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(40)]
    assert {d["model.net.pooling"] for d in drawn} == {"last", "attention"}
    for values in drawn:
        assert ("model.net.n_queries" in values) == (values["model.net.pooling"] == "attention")
        assert 1e-5 <= values["model.module.lr"] <= 1e-2


def test_corners_use_every_end_and_choice_and_meet_the_conditions():
    space = SearchSpace.of(CONDITIONAL)
    corners = space.corners()
    for path, ends in {"model.net.pooling": ("last", "attention"), "model.net.n_queries": (1, 8)}.items():
        assert {c[path] for c in corners if path in c} == set(ends)
    assert all(c["model.net.pooling"] == "attention" for c in corners if "model.net.n_queries" in c)


def test_a_space_survives_its_own_plain_form():
    space = SearchSpace.of(CONDITIONAL)
    assert SearchSpace.of(space.as_entries()) == space
    assert SearchSpace.of(space.as_entries()).digest == space.digest
    wider = CONDITIONAL | {"model.module.lr": {"type": "log", "low": 1e-5, "high": 2e-2}}
    assert SearchSpace.of(wider).digest != space.digest


def test_overrides_keep_every_digit_and_kind():
    values = {"a": 0.1 + 0.2, "b": None, "c": True, "d": "last", "e": 3, "f": "two words", "g": 1e-5}
    assert overrides_of(values) == [
        *("a=0.30000000000000004", "b=null", "c=true", "d=last", "e=3", "f='two words'", "g=1e-05"),
    ]


def test_leaves_are_all_dotted_paths():
    assert leaves({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a", "a.b", "a.c", "a.c.d", "e"}


numbers = st.lists(st.floats(0, 1), min_size=2, max_size=20)


@given(st.sampled_from(["float", "log", "int"]), numbers, st.sampled_from([None, 1, 4]))
def test_a_narrowed_range_is_valid_inside_the_old_and_holds_the_middle_of_the_best(kind, shares, step):
    step = None if kind == "log" else step
    old = Parameter.of("a", {"type": kind, "low": 2, "high": 50, "step": step})
    grid = step or (1 if kind == "int" else None)
    values = [2 + 48 * s for s in shares]
    if grid:
        values = [2 + grid * round((v - 2) / grid) for v in values]
    new = old.narrowed(values)
    new.check()
    assert old.low <= new.low < new.high <= old.high
    # a grid point or the least width may lie outside the quantiles, never the other way round
    low, high = np.quantile(values, [0.25, 0.75])
    assert new.low <= low * (1 + 1e-9)
    assert new.high >= high * (1 - 1e-9)
    if grid:
        assert (new.low - old.low) % grid == 0
        assert (new.high - old.low) % grid == 0


def test_a_zoom_keeps_the_choices_of_the_best_and_drops_what_they_no_longer_reach():
    space = SearchSpace.of(CONDITIONAL)
    best = [{"model.net.pooling": "last", "model.module.lr": lr} for lr in (1e-4, 2e-4, 3e-4)]
    narrow = space.narrowed(best)
    assert [p.path for p in narrow.parameters] == ["model.net.pooling", "model.module.lr"]
    assert narrow["model.net.pooling"].choices == ("last",)
    assert 5e-5 < narrow["model.module.lr"].low < 1.3e-4
    assert 2.7e-4 < narrow["model.module.lr"].high < 5e-4
