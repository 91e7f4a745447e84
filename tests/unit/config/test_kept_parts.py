"""Parts of a configuration that trials of a study share are built once."""

from omegaconf import OmegaConf

from tradsys.config.compose import build, compose

BASE = ["model=logistic", "data.n_bars=500"]


def test_parts_with_the_same_settings_are_used_again_and_others_are_built():
    kept = {}
    first = build(compose("train", BASE), kept)
    again = build(compose("train", [*BASE, "labels.horizon_bars=7", "data.n_bars=600"]), kept)
    assert again["features"] is first["features"]
    assert again["labels"] is not first["labels"]
    assert again["data"]["source"].n_bars == 600
    assert again["model"] is not first["model"], "its fits differ"
    third = build(compose("train", BASE), kept)
    assert third["data"]["source"].n_bars == 500


def test_a_study_builds_what_a_single_command_builds():
    kept = {}
    build(compose("train", BASE), kept)
    changed = compose("train", [*BASE, "model.C=0.5", "labels.horizon_bars=7", "split=holdout", "costs.fee_bps=3"])
    shared, alone = build(changed, kept), build(changed)
    assert list(shared) == list(alone)
    assert shared["features"].to_json() == alone["features"].to_json()
    shown = [{key: repr(part) for key, part in each.items() if key != "features"} for each in (shared, alone)]
    assert shown[0] == shown[1]


def test_a_whole_number_does_not_stand_for_a_truth_value_or_a_fraction():
    kept = {}
    for value in (1, 1.0, True):
        built = build(OmegaConf.create({"own": {"value": value}, "other": {"value": 2}}), kept)
        assert repr(built["own"]["value"]) == repr(value)
