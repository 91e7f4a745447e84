"""Fitted trees as arrays: serving evaluates them without loading a booster or scikit-learn.

The results equal the libraries' to the bit: the same comparisons, the same order of summation, the same precision.
Legend: N samples, F features, T trees, K nodes of all trees, G scores per sample.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tradsys.core.compiled import compiled
from tradsys.core.tables import Array
from tradsys.models.trees.files import tree_fields

BLOCK = 256  # rows evaluated by one tree before the next
LEAF = -1
AS_ZERO, ZERO_IS_MISSING, MISSING = 0, 1, 2  # how LightGBM's nodes treat NaN and 0; XGBoost's are MISSING
LARGEST = 88.7  # exponent at which XGBoost's sigmoid is cut off, so that float32 does not overflow
TINY = 1e-16
NO_MORE_THAN_ZERO = 1e-35  # LightGBM's kZeroThreshold


@dataclass(frozen=True, eq=False)
class Trees:
    """T trees whose leaves add up to G scores.

    left, right: int32 [K], number of the child, LEAF at a leaf. feature: int32 [K]. value: float64 [K], at a leaf its
    score, else the largest value that goes left. missing_left: bool [K]; missing: int8 [K]. roots: int32 [T], group:
    int32 [T]. base: float64 [G], the start of each sum. is_single: sums are float32, as XGBoost's, else float64.
    """

    left: Array
    right: Array
    feature: Array
    value: Array
    missing_left: Array
    missing: Array
    roots: Array
    group: Array
    base: Array
    is_single: bool

    @classmethod
    def of_xgboost(cls, learner: Mapping[str, Any]) -> Self:
        """The trees of a checked XGBoost learner."""
        model, about = learner["gradient_booster"]["model"], learner["learner_model_param"]
        groups = max(1, int(about["num_class"]))
        base = np.array([float(word) for word in about["base_score"].strip("[]").split(",")], dtype=np.float32)
        if groups == 1:  # a probability
            odds = np.float32(1) / base - np.float32(1)
            base = -np.log(odds.astype(np.float64)).astype(np.float32)  # rounded as the C library does, unlike numpy
        parts = []
        for tree in model["trees"]:
            left = np.array(tree["left_children"], dtype=np.int32)
            value = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
            below = np.where(left == LEAF, value, np.nextafter(value, -np.inf))  # equal values go right
            right = np.array(tree["right_children"], dtype=np.int32)
            parts.append((left, right, tree["split_indices"], below, tree["default_left"], [MISSING] * len(left)))
        return cls._joined(parts, np.array(model["tree_info"]), np.broadcast_to(base, groups), is_single=True)

    @classmethod
    def of_lightgbm(cls, text: str, groups: int) -> Self:
        """The trees of a checked LightGBM text with this number of scores per sample."""
        parts = []
        for tree in tree_fields(text):
            n, leaves = int(tree["num_leaves"]) - 1, _numbers(tree["leaf_value"])
            splits = {name: _numbers(tree[name]) for name in ("left_child", "right_child", "split_feature",
                                                              "threshold", "decision_type")}  # fmt: skip
            # leaves are numbered ~0, ~1, ..; they come after the n splits here
            ends = np.full(n + 1, LEAF)
            left, right = (np.append(np.where(c < 0, n - 1 - c, c), ends)
                           for c in (splits["left_child"], splits["right_child"]))  # fmt: skip
            kind = splits["decision_type"].astype(np.int64)
            feature, value = np.append(splits["split_feature"], ends), np.append(splits["threshold"], leaves)
            parts.append((left, right, feature, value, np.append(kind & 2, ends), np.append(kind >> 2, ends)))
        return cls._joined(parts, np.arange(len(parts)) % groups, np.zeros(groups), is_single=False)

    @classmethod
    def _joined(cls, parts: list[tuple[Any, ...]], group: Array, base: Array, *, is_single: bool) -> Self:
        """All trees in one set of arrays; children's numbers count from the first node of all."""
        sizes = [len(part[0]) for part in parts]
        roots = np.cumsum([0, *sizes[:-1]])
        left, right, feature, value, missing_left, missing = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        first = np.repeat(roots, sizes)
        left, right = (np.where(c == LEAF, LEAF, c + first).astype(np.int32) for c in (left, right))
        return cls(
            left, right, feature.astype(np.int32), value.astype(np.float64), missing_left > 0, missing.astype(np.int8),
            roots.astype(np.int32), group.astype(np.int32), np.array(base, dtype=np.float64), is_single,
        )  # fmt: skip

    def scores(self, values_NF: Array) -> Array:
        """Sum of each group's leaves, float64 [N, G], of float32 rows."""
        walked: Array = _walked(
            values_NF, self.left, self.right, self.feature, self.value, self.missing_left, self.missing, self.roots,
            self.group, self.base, self.is_single,
        )  # fmt: skip
        return walked

    def proba(self, values_NF: Array) -> Array:
        """P(class 1) [N] or [N, G] of scores.

        float32 of XGBoost's trees, else float64.
        """
        score_NG = self.scores(values_NF)
        found_NG = _single_proba(score_NG.astype(np.float32)) if self.is_single else _double_proba(score_NG)
        return found_NG[:, 0] if found_NG.shape[1] == 1 else found_NG


def _numbers(text: str) -> Array:
    return np.array([float(word) for word in text.split()])


@compiled
def _walked(
    values_NF: Array, left: Array, right: Array, feature: Array, value: Array, missing_left: Array, missing: Array,
    roots: Array, group: Array, base: Array, is_single: bool,
) -> Array:  # pragma: no cover - compiled  # fmt: skip
    n_rows = len(values_NF)
    out = np.empty((n_rows, len(base)))
    for n in range(n_rows):
        for g in range(len(base)):
            out[n, g] = base[g]
    for low in range(0, n_rows, BLOCK):
        high = min(low + BLOCK, n_rows)
        for t in range(len(roots)):
            g = group[t]
            for n in range(low, high):
                k = roots[t]
                while left[k] != LEAF:
                    x, goes_left = float(values_NF[n, feature[k]]), False
                    if math.isnan(x) and missing[k] == AS_ZERO:
                        x = 0.0
                    if math.isnan(x) or (missing[k] == ZERO_IS_MISSING and abs(x) <= NO_MORE_THAN_ZERO):
                        goes_left = missing_left[k]
                    else:
                        goes_left = x <= value[k]
                    k = left[k] if goes_left else right[k]
                total = out[n, g] + value[k]
                out[n, g] = float(np.float32(total)) if is_single else total
    return out


@compiled
def _single_proba(score_NG: Array) -> Array:  # pragma: no cover - compiled
    """XGBoost's sigmoid, or softmax, in its precision: float32, the softmax's sum float64."""
    one, out = np.float32(1.0), np.empty_like(score_NG)
    for n in range(len(score_NG)):
        if score_NG.shape[1] == 1:
            falls = math.exp(np.float32(min(-score_NG[n, 0], np.float32(LARGEST))))
            out[n, 0] = one / (one + falls + np.float32(TINY))
            continue
        top, total = score_NG[n, 0], 0.0
        for g in range(1, score_NG.shape[1]):
            top = max(top, score_NG[n, g])
        for g in range(score_NG.shape[1]):
            out[n, g] = math.exp(np.float32(score_NG[n, g] - top))
            total += out[n, g]
        for g in range(score_NG.shape[1]):
            out[n, g] /= np.float32(total)
    return out


@compiled
def _double_proba(score_NG: Array) -> Array:  # pragma: no cover - compiled
    """LightGBM's sigmoid, or softmax, in float64."""
    out = np.empty_like(score_NG)
    for n in range(len(score_NG)):
        if score_NG.shape[1] == 1:
            out[n, 0] = 1.0 / (1.0 + math.exp(-score_NG[n, 0]))
            continue
        top, total = score_NG[n, 0], 0.0
        for g in range(1, score_NG.shape[1]):
            top = max(top, score_NG[n, g])
        for g in range(score_NG.shape[1]):
            out[n, g] = math.exp(score_NG[n, g] - top)
            total += out[n, g]
        for g in range(score_NG.shape[1]):
            out[n, g] /= total
    return out
