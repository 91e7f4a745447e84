"""Superior predictive ability over the variants of a comparison."""

import numpy as np
import pytest

from tradsys.evidence.paired import VariantLosses
from tradsys.reports.comparison.page import superior
from tradsys.research.comparisons.superiority import superiority

TIME = np.arange(600).astype("datetime64[h]")


def variant(gain, seed, time=TIME):
    """Log-losses of a forecaster that is `gain` better than a coin, noise of its own, two seeds."""
    shared = np.random.default_rng(0).normal(0.69, 0.1, len(time))
    noise = np.random.default_rng(seed).normal(0, 0.05, (2, len(time)))
    return VariantLosses(time, shared - gain + noise, np.full(len(time), 0.69), (0, 1))


def judged(variants):
    return superiority(variants, "a", min_block=1, n_draws=400)


def test_the_best_of_equals_is_luck_and_a_better_one_is_not():
    equal = {name: variant(0.0, k) for k, name in enumerate("abcdefgh")}
    assert judged(equal)["p"] > 0.05
    found = judged(equal | {"z": variant(0.02, 99)})
    assert found["p"] < 0.01
    assert (found["best"], found["n_variants"], found["reason"]) == ("z", 9, None)
    assert found["p_low"] <= found["p"] <= found["p_high"]


def test_one_lucky_variant_of_many_is_judged_by_how_many_there_were():
    base, lucky = variant(0.0, 1), variant(0.0045, 2)
    rivals = {f"r{k}": variant(0.0, 10 + k) for k in range(30)}
    few = judged({"a": base, "lucky": lucky, "r0": rivals["r0"]})
    many = judged({"a": base, "lucky": lucky, **rivals})
    assert many["p"] > few["p"]


@pytest.mark.parametrize(
    ("variants", "why"),
    [
        ({"a": variant(0, 1), "b": variant(0, 2)}, "2 variants share the reference's rows; it takes 3"),
        ({"a": variant(0, 1), "b": variant(0, 2), "c": variant(0, 3, TIME[:500])}, "2 variants share"),
        ({n: variant(0, 1) for n in "abc"}, "every variant has the same losses as the reference"),
        ({n: variant(0, k, TIME[:30]) for k, n in enumerate("abc")}, "leave the test out until then"),
    ],
)
def test_where_it_is_not_tested_the_page_says_why(variants, why):
    found = superiority(variants, "a", min_block=10, n_draws=50)
    assert found["p"] is None
    assert why in found["reason"]
    assert why in superior({"superiority": found, "reference": "a"})


def test_the_sentence_names_the_best_and_the_doubt():
    said = superior({"superiority": {"p": 0.0312, "best": "trees", "n_variants": 5, "reason": None}, "reference": "a"})
    assert (
        "were no variant truly better than a, the best of 4, here trees, would do as well as it did with p = 0.031"
        in said
    )
