import math
from dataclasses import dataclass

import numpy as np
import pytest

from tradsys.core.bounds import check_bounds, is_within
from tradsys.core.errors import TrainingError


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("(0, 1]", [1, 1.0, 1e-300, np.float32(0.5)], [0, -1, 1.0001, math.nan, math.inf, None, "0.5", True]),
        ("[0, 1)", [0, 0.0, 0.999], [1, -1e-9, math.nan, None]),
        ("(0, inf)", [1e9], [math.inf, 0]),
        ("(0, inf]", [math.inf], [0, math.nan]),
        ("whole [1, inf)", [1, np.int64(7)], [0, 1.0, 1.5, "1", True, None]),
        ("null or whole [1, inf)", [None, 3], [0, 2.0]),
        ("null or (0, inf]", [None, 0.1], [0, -1]),
    ],
)
def test_ends_kinds_and_nan(rule, inside, outside):
    assert [value for value in inside if not is_within(value, rule)] == []
    assert [value for value in outside if is_within(value, rule)] == []


def test_the_first_setting_out_of_range_is_named_with_its_rule_and_place():
    @dataclass
    class Part:
        rate: float = 0.0
        n_trees: int | None = 1

    rules = {"n_trees": "null or whole [1, inf)", "rate": "(0, inf)"}
    with pytest.raises(TrainingError) as refused:
        check_bounds("trees", Part(), rules, "model")
    assert str(refused.value) == "trees: rate=0.0; it must be a number in (0, inf); set model.rate"
    with pytest.raises(TrainingError, match=r"n_trees=1.5; it must be null or a whole number in \[1, inf\); set model"):
        check_bounds("trees", Part(1.0, 1.5), rules, "model")
    check_bounds("trees", {"rate": 0.5, "n_trees": None, "more": "x"}, rules, "model")
