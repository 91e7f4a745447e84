"""What a tracker is sent: numbers with their bounds, masked settings, files that are there."""

import math

import pytest

from tests.unit.reports import sample_pages
from tests.unit.reports.sample_report import sample_report
from tradsys.ops.tracking.contents import comparison_record, flat_config, flat_metrics, run_record, study_records


def test_an_estimate_keeps_its_bounds_and_a_missing_number_is_left_out():
    value = {
        "skill_beyond_level": {"value": 0.1, "low": -0.2, "high": 0.4, "reason": None},
        "sharpe": {"value": None, "low": None, "high": None, "reason": "no trade was closed"},
        "auc": {"value": 0.6, "low": None, "high": None, "reason": "fewer than 20 effective blocks"},
        "deep": {"n": 3, "is_good": True, "name": "x", "nan": math.nan, "inf": math.inf, "list": [1.0]},
    }
    assert dict(flat_metrics(value)) == {"skill": 0.1, "skill_low": -0.2, "skill_high": 0.4, "auc": 0.6, "deep/n": 3.0}


def test_the_config_is_flat_and_masked():
    config = {"storage": "postgresql://me:hush-hush@host/db", "data": {"n_bars": 5, "api_key": "0123456789ab"}}
    flat = flat_config(config)
    assert flat["data.n_bars"] == "5"
    assert flat["data.api_key"] == "***"
    assert "hush" not in flat["storage"]


@pytest.fixture(scope="module")
def report():
    return sample_report()


def test_a_run_is_logged_with_its_headline_its_digests_and_its_files(report, tmp_path):
    (tmp_path / "report.html").write_text("page")
    record = run_record(report, tmp_path)
    assert {"skill", "models/primary/auc"} <= set(record.metrics)
    assert record.tags["verdict"] == report["verdict"]["kind"]
    assert record.tags["code_sha"] == report["provenance"]["code_sha"]
    assert [path.name for path in record.files] == ["report.html"]


def test_a_study_gives_one_child_per_trial_that_ended():
    sweep = sample_pages.sweep() | {"folder": "runs/tune/demo", "identity": {"data_digest": "d"}}
    for row in sweep["trials"]:
        row["curve"] = [[0, 0.01], [1, 0.02]]
    sweep["trials"][11]["state"] = "running"
    study, trials = study_records(sweep)
    assert len(trials) == sum(row["state"] not in ("running", "waiting") for row in sweep["trials"])
    best = next(row for row in sweep["trials"] if row["place"] == sweep["best"])
    child = next(one for one in trials if one.key == str(sweep["best"]))
    assert child.metrics["skill"] == best["mean_skill"] == study.metrics["best_skill"]
    assert child.metrics["skill_low"] == best["lower_bound"] == study.metrics["best_skill_low"]
    assert set(child.config) >= set(best["params"])
    assert child.curve == [(0, 0.01), (1, 0.02)]


def test_a_comparison_keeps_each_variant_s_skill_with_its_interval():
    table = sample_pages.comparison()
    record = comparison_record(table)
    for row in table["variants"]:
        found = row["skill_beyond_level"]
        assert record.metrics[f"{row['name']}/skill"] == found["value"]
        if found["low"] is not None:
            assert record.metrics[f"{row['name']}/skill_low"] == found["low"]
