"""Checks of boosters' files before their C++ readers, which trust counts and indices and abort on wrong ones.

Every tree must be a tree: each node but the root has one parent, children and features lie within range, all numbers
are finite, and the arrays have one entry per node.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tradsys.core.errors import BundleError
from tradsys.core.plain_data import Json
from tradsys.core.received import one_line, parse_json

FIX = "export it again"
MAX_TREES, MAX_NODES, MAX_FEATURES = 100_000, 2**20, 100_000
# fields of one LightGBM tree by their length: splits (leaves - 1) or leaves
OF_SPLITS = (
    "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child", "internal_value",
    "internal_weight", "internal_count",
)  # fmt: skip
OF_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
WHOLE = ("split_feature", "decision_type", "left_child", "right_child", "leaf_count", "internal_count")
WHOLE_NUMBER, NUMBER = re.compile(r"-?[0-9]{1,10}"), re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]{1,3})?")
RANGE = re.compile(rf"none|\[({NUMBER.pattern}|-inf):({NUMBER.pattern}|inf)\]")
MOST_WHOLE = 2**31 - 1
FLAGS = 0b1111  # of a decision_type: categorical (never written here), default left, missing type (2 bits)


def sound_lightgbm(text: str, n_features: int, n_classes: int, where: str) -> str:
    """A LightGBM booster's text rewritten from its checked numbers.

    Raises BundleError where these are invalid. LightGBM reads nothing that was not checked: names, parameters and sizes
    are not copied. n_features: names in the note. n_classes: of the classifier, 1 for a regressor.
    """
    head, *trees = text.split("\nTree=")
    per_round = n_classes if n_classes > 2 else 1
    fields = _fields(head, where)
    own = {"version": "v4", "num_class": str(per_round), "num_tree_per_iteration": str(per_round), "label_index": "0",
           "max_feature_idx": str(n_features - 1)}  # fmt: skip
    if not head.startswith("tree\n") or any(fields.get(k) != v for k, v in own.items()):
        raise _wrong(where, f"its header is not that of {n_features} features and {n_classes} classes")
    objective = {1: "regression", 2: "binary sigmoid:1"}.get(n_classes, f"multiclass num_class:{n_classes}")
    if fields.get("objective") != objective:
        raise _wrong(where, f"its objective is {one_line(fields.get('objective', ''), 40)!r}, not {objective!r}")
    ranges = fields.get("feature_infos", "").split(" ")
    if len(ranges) != n_features or not all(map(RANGE.fullmatch, ranges)):
        raise _wrong(where, f"it has {len(ranges)} ranges for {n_features} features")
    if not 0 < len(trees) <= MAX_TREES or len(trees) % per_round:
        raise _wrong(where, f"it has {len(trees)} trees, which is no multiple of {per_round} a round")
    trees[-1], mark, tail = trees[-1].partition("end of trees")
    if not mark or "\nend of parameters" not in tail:
        raise _wrong(where, "it ends early")
    bodies = [_sound_tree(body, k, n_features, f"{where}: tree {k}") for k, body in enumerate(trees)]
    own |= {"objective": objective, "feature_names": " ".join(f"Column_{k}" for k in range(n_features))}
    own |= {"feature_infos": " ".join(ranges), "tree_sizes": " ".join(str(len(body)) for body in bodies)}
    header = "tree\n" + "".join(f"{key}={value}\n" for key, value in own.items())
    closing = "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n\npandas_categorical:null\n"
    return f"{header}\n{''.join(bodies)}{closing}"


def tree_fields(sound: str) -> Iterator[dict[str, str]]:
    """Fields of each tree of a text that `sound_lightgbm` wrote."""
    for body in sound.partition("end of trees")[0].split("\nTree=")[1:]:
        yield dict(line.split("=", 1) for line in body.split("\n") if "=" in line)


def _fields(text: str, where: str) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in text.split("\n") if "=" in line]
    found = {key: value for key, value in pairs}
    if len(found) != len(pairs):
        raise _wrong(where, "a field stands twice")
    return found


def _sound_tree(body: str, number: int, n_features: int, where: str) -> str:
    """One tree as LightGBM writes it, from checked numbers only."""
    first, _, rest = body.partition("\n")
    tree = _fields(rest, where)
    leaves = tree.get("num_leaves", "")
    if first != str(number) or not WHOLE_NUMBER.fullmatch(leaves) or not 1 <= int(leaves) <= MAX_NODES:
        raise _wrong(where, f"it is numbered {one_line(first, 20)!r} with {one_line(leaves, 20)!r} leaves")
    if tree.get("num_cat") != "0" or tree.get("is_linear", "0") != "0":
        raise _wrong(where, "it has categorical or linear parts, which are never written here")
    n, kept = int(leaves), {"num_leaves": leaves, "num_cat": "0"}
    for name in (*OF_SPLITS[:6], *OF_LEAVES, *OF_SPLITS[6:]):
        wanted = n - 1 if name in OF_SPLITS else n
        # a tree that never split is its one value
        if n > 1 or name == "leaf_value":
            _number_list(tree.get(name, ""), wanted, name in WHOLE, f"{where}: {name}")
        kept[name] = tree.get(name, "") if n > 1 or name == "leaf_value" else ""
    _number_list(tree.get("shrinkage", ""), 1, False, f"{where}: shrinkage")
    if n > 1:
        _check_splits(tree, n, n_features, where)
    kept |= {"is_linear": "0", "shrinkage": tree["shrinkage"]}
    return f"Tree={number}\n" + "".join(f"{key}={value}\n" for key, value in kept.items()) + "\n\n"


def _check_splits(tree: dict[str, str], n: int, n_features: int, where: str) -> None:
    features = _number_list(tree["split_feature"], n - 1, True, where)
    kinds = _number_list(tree["decision_type"], n - 1, True, where)
    if features.min() < 0 or features.max() >= n_features or any(int(k) & ~FLAGS or int(k) & 1 for k in kinds):
        raise _wrong(where, "a split has an unknown feature or kind")
    left, right = (_number_list(tree[name], n - 1, True, where) for name in ("left_child", "right_child"))
    # inner nodes are 0.., leaves ~0, ~1, ..: each but the root is the child of exactly one node, and of an earlier one
    children = np.concatenate([left, right]).astype(np.int64)
    parents = np.tile(np.arange(n - 1), 2)
    inner = children >= 0
    if sorted(children.tolist()) != [*range(-n, 0), *range(1, n - 1)] or (children[inner] <= parents[inner]).any():
        raise _wrong(where, "its nodes are no tree")


def _number_list(text: str, n: int, whole: bool, where: str) -> np.ndarray[Any, Any]:
    words = text.split(" ") if text else []
    form = WHOLE_NUMBER if whole else NUMBER
    if len(words) != n or not all(map(form.fullmatch, words)):
        raise _wrong(where, f"it has {len(words)} words where {n} {('whole ' if whole else '')}numbers must stand")
    values = np.array([float(word) for word in words])
    if not np.isfinite(values).all() or (whole and np.abs(values).max(initial=0) > MOST_WHOLE):
        raise _wrong(where, "its numbers are not finite, or too large")
    return values


# arrays of one XGBoost tree with one entry per node
OF_NODES = (
    "base_weights", "default_left", "left_children", "loss_changes", "parents", "right_children", "split_conditions",
    "split_indices", "split_type", "sum_hessian",
)  # fmt: skip
NO_CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


def check_xgboost(text: str, where: str) -> Json:
    """The JSON of an XGBoost booster, once its parameters and every tree are sound.

    Raises BundleError otherwise.
    """
    value = parse_json(text, where, FIX)
    learner = _at(value, where, "learner")
    booster = _at(learner, where, "gradient_booster")
    model, about = _at(booster, where, "model"), _at(learner, where, "learner_model_param")
    if booster.get("name") != "gbtree" or not isinstance(value.get("version"), list):
        raise _wrong(where, f"it holds a {booster.get('name')!r:.20}, not trees")
    objective = _at(learner, where, "objective").get("name")
    n_features, n_classes = (_whole(about.get(k), f"{where}: {k}") for k in ("num_feature", "num_class"))
    if objective not in ("binary:logistic", "multi:softprob") or (objective == "multi:softprob") != (n_classes > 0):
        raise _wrong(where, f"its objective is {objective!r:.40} with {n_classes} classes")
    if not 0 < n_features <= MAX_FEATURES or n_classes > MAX_FEATURES or about.get("num_target") != "1":
        raise _wrong(
            where, f"it is for {n_features} features, {n_classes} classes and {about.get('num_target')!r:.20} targets"
        )
    trees, info = model.get("trees"), model.get("tree_info")
    starts, counts = model.get("iteration_indptr"), _at(model, where, "gbtree_model_param")
    n_trees, groups = len(trees) if isinstance(trees, list) else 0, max(1, n_classes)
    if not 0 < n_trees <= MAX_TREES or counts != {"num_parallel_tree": "1", "num_trees": str(n_trees)}:
        raise _wrong(where, f"it has {n_trees} trees, counted as {one_line(counts, 60)}")
    if info != [k % groups for k in range(n_trees)] or starts != list(range(0, n_trees + 1, groups)):
        raise _wrong(where, "its trees do not belong to the rounds and classes that it lists")
    if any(_at(model, where, "cats").values()) or learner.get("feature_types") or learner.get("feature_names"):
        raise _wrong(where, "it has categories or names of features, which are never written here")
    _check_base(about.get("base_score"), groups, where)
    _check_scale(_at(learner, where, "objective"), where)
    assert isinstance(trees, list)
    for k, tree in enumerate(trees):
        _check_nodes(tree, k, n_features, f"{where}: tree {k}")
    attributes = _at(learner, where, "attributes")
    if not all(isinstance(v, str) for v in attributes.values()):
        raise _wrong(where, "an attribute is no text")
    return value


def _check_base(text: Any, groups: int, where: str) -> None:
    try:
        scores = [float(word) for word in text.strip("[]").split(",")]
    except (AttributeError, ValueError) as error:
        raise _wrong(where, f"base_score={text!r:.40}") from error
    sound = all(math.isfinite(s) for s in scores) and (groups > 1 or 0 < scores[0] < 1)
    if len(scores) not in (1, groups) or not sound:
        raise _wrong(where, f"base_score={text!r:.40}")


def _check_scale(objective: Json, where: str) -> None:
    for name, found in objective.items():
        if name != "name" and not (isinstance(found, dict) and all(_is_numeral(v) for v in found.values())):
            raise _wrong(where, f"{name} of its objective is malformed")


def _is_numeral(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _check_nodes(tree: Any, k: int, n_features: int, where: str) -> None:
    if not isinstance(tree, dict) or tree.get("id") != k:
        raise _wrong(where, "it is not the tree of that number")
    about = _at(tree, where, "tree_param")
    n = _whole(about.get("num_nodes"), f"{where}: num_nodes")
    sound = about.get("num_feature") == str(n_features) and about.get("size_leaf_vector") in ("0", "1")
    if not (sound and about.get("num_deleted") == "0" and 1 <= n <= MAX_NODES):
        raise _wrong(where, f"its parameters are {one_line(about, 80)}")
    for name in OF_NODES:
        _check_list(tree.get(name), n, f"{where}: {name}")
    if any(tree.get(name) != [] for name in NO_CATEGORIES) or any(tree["split_type"]):
        raise _wrong(where, "it has categories, which are never written here")
    left, right, parents = tree["left_children"], tree["right_children"], tree["parents"]
    if not all(v in (0, 1) for v in tree["default_left"]):
        raise _wrong(where, "default_left is neither 0 nor 1")
    seen = [False] * n
    for node in range(n):
        kids = (left[node], right[node])
        if kids == (-1, -1):
            continue
        for kid in kids:
            if not (isinstance(kid, int) and node < kid < n) or seen[kid] or parents[kid] != node:
                raise _wrong(where, "its nodes are no tree")
            seen[kid] = True
        if not (isinstance(tree["split_indices"][node], int) and 0 <= tree["split_indices"][node] < n_features):
            raise _wrong(where, "a split has an unknown feature")
    if seen != [False, *[True] * (n - 1)]:
        raise _wrong(where, "its nodes are no tree")


def _check_list(values: Any, n: int, where: str) -> Sequence[Any]:
    sound = isinstance(values, list) and len(values) == n
    if not sound or not all(type(v) in (int, float) and math.isfinite(v) and abs(v) < 2**128 for v in values):
        raise _wrong(where, f"{n} finite numbers must stand here")
    return values


def _at(value: Any, where: str, key: str) -> Json:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise _wrong(where, f"it lacks {key!r}")
    return found


def _whole(text: Any, where: str) -> int:
    if not (isinstance(text, str) and text.isdigit() and len(text) < 10):
        raise _wrong(where, f"{text!r:.40} is no count")
    return int(text)


def _wrong(where: str, what: str) -> BundleError:
    return BundleError(f"{where}: {what}; it is damaged or foreign; {FIX}")
