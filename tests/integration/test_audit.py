"""The audit command: no experiment of conf/ raises a finding, a leak exits with 1, bad input with one clear line."""

import json

import pytest

from tests.integration.conftest import inside, is_daily, shrunk
from tests.leaks.every import LEAKS
from tradsys.audit import main, work
from tradsys.config.compose import conf_folder
from tradsys.core.errors import TradsysError
from tradsys.features.feature_set import FeatureSet
from tradsys.research.leakage.subject import QUESTIONS, AuditSettings

EXPERIMENTS = sorted(p.stem for p in (conf_folder() / "experiment").glob("*.yaml"))
SHRUNK = [
    "data=synthetic",
    "data.n_bars=1600",
    "split=holdout",
    "size.lookback=8",  # what is asked of a net does not ask how wide it is
    "size.d_model=8",
    "size.n_layers=1",
    "regime.lookback=48",
    "audit.n_rows=4800",
    "audit.n_samples=300",
    "audit.n_cuts=2",
    "trainer.progress_bar=false",
]

DAILY = [
    "audit.n_rows=4800",
    "audit.n_samples=300",
    "audit.n_cuts=2",
    "audit.n_symbols=6",
    "trainer.progress_bar=false",
]


def answers(folder):
    return json.loads((folder / "runs/audit/latest/audit.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_experiment_raises_a_finding(name, tmp_path):
    with inside(tmp_path):
        work([f"+experiment={name}", *(DAILY + shrunk(name) if is_daily(name) else SHRUNK)])
    reported = answers(tmp_path)
    assert {a["verdict"] for a in reported} <= {"ok", "not checked"}
    assert {a["question"] for a in reported} == set(QUESTIONS)
    parts = {a["part"] for a in reported}
    assert {"features", "labels", "samples", "split", "transforms", "regime", "primary"} <= parts
    assert {"calibrator", "auditor", "bundle", "strategy", "execution", "thresholds"} <= parts


def test_a_finding_is_printed_and_exits_with_1(tmp_path, monkeypatch, capsys):
    leak = next(one for one in LEAKS if one.name == "label that enters at the close of its decision")
    leak.plant(monkeypatch, None)
    with inside(tmp_path), pytest.raises(SystemExit) as stopped:
        work([*SHRUNK, "audit.parts=[labels]", "audit.questions=[future]"])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    for word in ("labels", "future", "LEAK", "ret", "SYN0"):
        assert word in printed
    (reported,) = answers(tmp_path)
    assert reported["verdict"] == "LEAK"
    assert reported["finding"]["column"] == "ret"
    assert reported["finding"]["size"] > 0


def test_the_borrow_fee_of_shorts_is_no_look_ahead(tmp_path):
    """Three symbols, long and short: what is held costs the same whatever bars come later, or other symbols have."""
    wanted = ["agent=reversion", "model=logistic", "strategy=[]", "regime=none", "auditor=none"]
    checked = ["audit.parts=[labels,samples]", "audit.questions=[future]", "costs.borrow_bps_per_year=500"]
    with inside(tmp_path):
        work([*[one for one in SHRUNK if not one.startswith("regime")], *wanted, *checked])
    assert [a["verdict"] for a in answers(tmp_path)] == ["ok", "ok"]


def test_a_refusal_of_the_package_is_a_finding(tmp_path, monkeypatch):
    from tradsys.samples import splits

    monkeypatch.setattr(splits, "purge", lambda train, *a, **k: train)
    with inside(tmp_path), pytest.raises(SystemExit):
        work([*SHRUNK, "audit.parts=[transforms]", "audit.questions=[sealed]"])
    (reported,) = answers(tmp_path)
    assert "tradsys refused" in reported["finding"]["how"]


def test_what_features_learn_is_asked_of_the_configured_split(tmp_path, monkeypatch):
    real = FeatureSet.fit
    monkeypatch.setattr(FeatureSet, "fit", lambda self, bars, until=None: real(self, bars))
    with inside(tmp_path), pytest.raises(SystemExit):
        work([*SHRUNK, "audit.parts=[features]", "audit.questions=[sealed]"])
    (reported,) = answers(tmp_path)
    assert reported["finding"]["column"] == "ffd"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("audit.parts=[feature]", "unknown parts ['feature']"),
        ("audit.questions=[past,present]", "unknown questions ['present']"),
        ("audit.n_cuts=0", "n_cuts=0"),
        ("audit.n_rws=5", "did you mean 'audit.n_rows'"),
        ("+experiment=dmo", "did you mean 'demo'"),
    ],
)
def test_bad_input_is_one_clear_line(override, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tradsys audit", "data.n_bars=800", override])
    with inside(tmp_path), pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 or "Error" not in error
    assert words in " ".join(error.split())


def test_settings_refuse_what_is_out_of_range():
    with pytest.raises(TradsysError, match="n_samples=0"):
        AuditSettings(n_samples=0)
