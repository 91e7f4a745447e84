"""What the variants of a study differ in: exactly the keys of the study."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from tradsys.compare import _variant
from tradsys.config.compose import build, compose
from tradsys.research.comparisons.settings import Variant

# study, variant: the keys in which its config differs from that of the variant it is compared with
ATTEMPTS = {
    "window_16": {"model.lookback"},
    "window_64": {"model.lookback"},
    "dropout": {"model.net.dropout"},
    "weight_decay": {"model.module.weight_decay"},
    "smoothing": {"model.module.label_smoothing"},
    "unweighted": {"weighting"},
    "logistic_unweighted": {"weighting"},
    "lightgbm_unweighted": {"weighting"},
    "residual": {"features.features"},
    "logistic_residual": {"features.features"},
    "lightgbm_residual": {"features.features"},
}
RANKS = {name: {"features.ranks"} for name in ("logistic_ranked", "lightgbm_ranked", "transformer_ranked")}


@cache
def variants_of(study: str) -> dict[str, Variant]:
    settings = build(compose("compare", [f"+study={study}"]))["study"]
    return {name: _variant(name, choice, settings, [f"+study={study}"]) for name, choice in settings.choices.items()}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def differing(a: Any, b: Any) -> set[str]:
    mine, theirs = dict(leaves(a)), dict(leaves(b))
    return {key for key in mine | theirs if mine.get(key, ...) != theirs.get(key, ...)}


@pytest.mark.parametrize(("study", "changed"), [("attempts_years", ATTEMPTS), ("ranks_years", RANKS)])
def test_an_variant_changes_what_it_says_and_nothing_else(study, changed):
    variants = variants_of(study)
    for name, keys in changed.items():
        variant = variants[name]
        assert differing(variant.config, variants[variant.against].config) == keys, name
        # such as a net beside nets: a variant is paired with the same model, never with another kind
        assert type(variant.experiment.model) is type(variants[variant.against].experiment.model)


def test_the_seed_average_holds_copies_of_the_reference():
    variants = variants_of("attempts_years")
    inner, alone = variants["seed_average"].config["model"]["model"], variants["transformer"].config["model"]
    assert differing(inner, alone) == set()


@pytest.mark.parametrize("model", ["logistic", "lightgbm", "transformer"])
def test_single_and_pooled_are_one_model_with_one_scaler_and_one_calibrator(model):
    variants = variants_of("pooled_years")
    single, pooled = variants[f"{model}_single"], variants[f"{model}_pooled"]
    assert {single.against, pooled.against} <= {f"{model}_single", "logistic_single", None}
    assert differing(single.config["model"]["model"], pooled.config["model"]) == set()
    assert differing(single.config["model"]["calibrator"], pooled.config["calibration"]) == set()
    assert differing(single.config["model"]["scaler"], pooled.config["transforms"]) == set()
    assert type(single.experiment.calibration).__name__ == "Identity"  # nothing outside pools them again
    assert {key.partition(".")[0] for key in differing(single.config, pooled.config)} == {"model", "calibration"}


@pytest.mark.parametrize("study", ["label_years", "pooled_years", "attempts_years", "ranks_years"])
def test_years_of_seven_coins_end_before_2025_and_decide_by_the_clock(study):
    for variant in variants_of(study).values():
        source = variant.experiment.data["source"]
        assert len(source.symbols) == 7
        assert str(source.end) == "2025-01-01"
        assert variant.experiment.events.every_hours == 8
