"""Small real studies on the synthetic market, through the command."""

import errno
import json
import shutil
import sys
import threading
import urllib.request
from wsgiref.simple_server import make_server

import numpy as np
import optuna_dashboard
import polars as pl
import pytest
import yaml

import tradsys.config.compose
from tradsys.config.trusted import checked_overrides
from tradsys.research.pipeline.cross_validation import run_fit
from tradsys.research.pipeline.dataset import build_dataset, load_bars
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.research.sweeps import fold_fits, inner_folds
from tradsys.research.sweeps.commands import promote, tune
from tradsys.research.sweeps.inner_folds import InnerFolds, shared_dataset
from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.storage import open_storage
from tradsys.research.sweeps.sweep import checked
from tradsys.tune import composed, work

SMALL = [
    "data=synthetic",
    "data.n_bars=1500",
    "data.source.symbols=[SYN0]",
    "features=single_bars",
    "regime.lookback=16",
    "sweep.inner.n_folds=2",
    "storage_patience_seconds=2",
]
LOGISTIC = [*SMALL, "sweep=logistic", "sweep.n_startup=4", "sweep.pruner=none"]
NET = [
    *SMALL,
    "sweep=transformer",
    "sweep.seeds=[101]",
    "~sweep.space",
    "+sweep.space={model.module.lr:{type:log,low:0.0005,high:0.05},model.net.n_layers:{type:int,low:1,high:2}}",
    "model.lookback=8",
    "model.net.d_model=8",
    "model.net.n_heads=2",
    "model.batch_size=64",
    "trainer.max_epochs=2",
]


def run_study(arguments):
    return tune(composed, arguments, [], checked_overrides)[0]


@pytest.fixture(scope="module")
def logistic(tmp_path_factory):
    runs = tmp_path_factory.mktemp("tune")
    return run_study([*LOGISTIC, f"paths.runs={runs}", "n_trials=10"]), runs


def test_every_trial_is_a_run_folder_and_one_ledger_row(logistic):
    report, runs = logistic
    folders = sorted((runs / "tune/logistic/trials").iterdir())
    assert [f.name for f in folders] == [f"{k:05d}" for k in range(10)]
    rows = [r for r in TrialLedger(runs / "ledger.db").entries() if r["purpose"] == "tune"]
    assert sorted(r["run"] for r in rows) == [str(f) for f in folders]
    assert {r["measure"] for r in rows} == {"loss"}
    for folder, trial in zip(folders, report["trials"], strict=True):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["mean_skill"] == trial["values"][0] == np.mean(trial["skills"])
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["model"]["C"] == trial["params"]["model.C"]


def test_the_choice_of_the_best_trial_has_its_probability_of_overfitting(logistic):
    report, runs = logistic
    found = report["overfitting"]
    kept = [t["block_gains"] for t in report["trials"] if t["state"] == "complete"]
    assert found["n_trials"] == len(kept)
    for trial in (t for t in report["trials"] if t["state"] == "complete"):
        assert len(trial["block_gains"]) == 4 * len(trial["skills"])
    assert found["reason"] is None
    assert 0 <= found["pbo"] <= 1
    assert f"PBO {found['pbo']:.2f}" in (runs / "tune/logistic/report.html").read_text()


def test_the_same_command_does_no_trial_again_and_more_trials_go_on(logistic):
    report, runs = logistic
    arguments = [*LOGISTIC, f"paths.runs={runs}"]
    again = run_study([*arguments, "n_trials=10"])
    assert [t["values"] for t in again["trials"]] == [t["values"] for t in report["trials"]]
    more = run_study([*arguments, "n_trials=11"])
    assert [t["place"] for t in more["trials"]] == list(range(11))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.seed=8", "data digest"),
        ("sweep.seeds=[7]", "space digest"),
        ("transforms.quantile=0.1", "config digest"),
    ],
)
def test_another_data_space_or_config_may_not_join(logistic, change, said, tmp_path):
    report, _ = logistic
    # a folder of its own, as on another pod
    arguments = [*LOGISTIC, change, f"paths.runs={tmp_path}", f"storage={report['storage']}", "n_trials=12"]
    with pytest.raises(SweepError, match=f"{said}.*give study= another name"):
        run_study(arguments)


def test_who_joins_with_other_code_reads_so(logistic, tmp_path, monkeypatch, caplog):
    report, _ = logistic
    monkeypatch.setattr("tradsys.research.sweeps.sweep.code_sha", lambda: "0123abcd4567")
    run_study([*LOGISTIC, f"paths.runs={tmp_path}", f"storage={report['storage']}", "n_trials=10"])
    assert f"begun on code {report['code_sha']}, this is 0123abcd4567; its trials are of both" in caplog.text


def test_the_outer_test_span_moves_no_value(tmp_path, monkeypatch):
    parts = composed([*LOGISTIC, "n_trials=3"])
    experiment, inner = parts.experiment, parts.settings.inner
    bars = load_bars(experiment)
    skills = {}
    for name in ("as it was", "changed"):
        changed = bars if name == "as it was" else _with_another_test_span(experiment, bars)
        monkeypatch.setattr(inner_folds, "load_bars", lambda _, bars=changed: bars)
        dataset = shared_dataset(experiment, parts.config | {"data": name}, inner, tmp_path, experiment.lookback)
        skills[name] = [run_fit(experiment, dataset, k, 101).skill for k in range(len(dataset.folds))]
        late = max(dataset.samples.end[fold.test].max() for fold in dataset.folds)
        outer = next(iter(experiment.split.split(dataset.samples)))
        assert late < dataset.samples.start[outer.test].min()
    assert skills["as it was"] == skills["changed"]


def _with_another_test_span(experiment, bars):
    """Prices from the first test window on, reversed: other moves, other labels, up to the last bars that end them."""
    dataset = build_dataset(experiment, bars, experiment.split)
    first = int(dataset.samples.start[dataset.folds[0].test].min())
    last = len(bars) - experiment.labels.horizon_bars - 2
    names = ["open", "high", "low", "close", "volume"]
    values = bars.select(names).to_numpy().copy()
    values[first:last] = values[first:last][::-1]
    assert not np.array_equal(values, bars.select(names).to_numpy())
    return bars.with_columns(pl.Series(n, values[:, k]) for k, n in enumerate(names))


def test_inner_folds_are_those_of_a_splitter_on_the_kept_samples_alone(tmp_path):
    parts = composed([*LOGISTIC, "n_trials=3"])
    dataset = shared_dataset(parts.experiment, parts.config, parts.settings.inner, tmp_path, 16)
    outer = next(iter(parts.experiment.split.split(dataset.samples)))
    test = set(outer.test.tolist())
    kept = np.sort(np.concatenate([outer.train, outer.valid]))
    expected = list(parts.settings.inner.split(dataset.samples.take(kept)))
    for fold, same in zip(dataset.folds, expected, strict=True):
        for part in ("train", "valid", "test"):
            rows = np.asarray(getattr(fold, part))
            np.testing.assert_array_equal(rows, kept[getattr(same, part)])
            assert not test & set(rows.tolist())
    assert len(list(InnerFolds(parts.experiment.split, parts.settings.inner).split(dataset.samples))) == 2
    stored = next(tmp_path.glob("*/table_values.npy"))
    before = stored.read_bytes()
    dataset.samples.table.values[:] = 0  # a worker's own pages of the one copy that all workers map
    assert stored.read_bytes() == before


@pytest.fixture
def own_conf(tmp_path, monkeypatch):
    """A copy of conf/ that a test may write to."""
    conf = tmp_path / "conf"
    shutil.copytree(tradsys.config.compose.conf_folder(), conf)
    monkeypatch.setattr(tradsys.config.compose, "conf_folder", lambda: conf)
    return conf


@pytest.mark.parametrize(("stacked", "atol"), [("null", 1e-5), ("false", 0)])
def test_a_promoted_model_reproduces_its_trial(own_conf, tmp_path, stacked, atol):
    """To the last digit; to 1e-5 where the trial's folds trained as one stack."""
    runs = f"paths.runs={tmp_path / 'runs'}"
    report = run_study(
        [*NET, f"sweep.stacked={stacked}", "sweep.sampler=random", "sweep.pruner=none", runs, "n_trials=2"]
    )
    path = promote(
        composed, ["study=transformer", "name=winner", runs, "force=true"], own_conf / "model", checked_overrides
    )
    text = path.read_text()
    best = next(t for t in report["trials"] if t["place"] == report["best"])
    for fact in (f"trial: {best['place']}", report["identity"]["data_digest"], repr(best["lower_bound"])):
        assert fact in text
    assert "seed: ${seed}" in text.replace("'", "")
    again = composed(
        [*[o for o in NET if not o.startswith(("model.", "trainer."))], "model=winner", runs, "n_trials=1"]
    )
    dataset = shared_dataset(again.experiment, again.config, again.settings.inner, tmp_path / "own", 16)
    skills = [[run_fit(again.experiment, dataset, fold, 101).skill] for fold in range(2)]
    np.testing.assert_allclose(skills, best["skills"], rtol=0, atol=atol)
    with pytest.raises(SweepError, match="was not written by promote"):
        promote(
            composed, ["study=transformer", "name=lightgbm", runs, "force=true"], own_conf / "model", checked_overrides
        )


def test_zoom_searches_inside_the_old_ranges_and_rematches_on_fresh_seeds(logistic, tmp_path):
    report, runs = logistic
    own = tmp_path / "runs"
    shutil.copytree(runs, own)
    zoomed = run_study(["sweep=zoom", "study=logistic", f"paths.runs={own}", "n_trials=4"])
    assert zoomed["study"] == "logistic-zoom"
    old, new = (r["space"]["model.C"] for r in (report, zoomed))
    assert old["low"] <= new["low"] < new["high"] <= old["high"]
    assert new["high"] / new["low"] < old["high"] / old["low"]
    assert all(new["low"] <= t["params"]["model.C"] <= new["high"] for t in zoomed["trials"])
    rematch = zoomed["rematch"]
    assert not set(rematch["seeds"]) & {*report["seeds"], *zoomed["seeds"]}
    gain = np.mean(rematch["new"]["skills"]) - np.mean(rematch["old"]["skills"])
    assert rematch["gain"]["value"] == pytest.approx(gain, abs=1e-15)
    assert rematch["gain"]["low"] <= gain <= rematch["gain"]["high"]


def test_two_objectives_give_a_front_that_nothing_beats(tmp_path):
    arguments = [*LOGISTIC, "sweep.objectives=[skill,stability]", "sweep.sampler=random", "n_trials=6"]
    report = run_study([*arguments, f"paths.runs={tmp_path}"])
    values = {t["place"]: t["values"] for t in report["trials"]}
    front = {
        place
        for place, mine in values.items()
        if not any(all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine for other in values.values())
    }
    assert {t["place"] for t in report["trials"] if t["in_front"]} == front
    for trial in report["trials"]:
        assert trial["values"][1] == pytest.approx(-np.std([np.mean(f) for f in trial["skills"]], ddof=1))


def test_a_refused_combination_and_a_failed_fit_are_distinguished(tmp_path):
    heads, lr = "{type:categorical,choices:[2,3]}", "{type:categorical,choices:[0.001,1.0]}"
    space = f"+sweep.space={{model.net.n_heads:{heads},model.module.lr:{lr}}}"
    arguments = [o for o in NET if not o.startswith("+sweep.space")] + [
        space,
        "sweep.sampler=random",
        "sweep.pruner=none",
        "model.module.weight_decay=100",  # at the higher rate each step makes weights 99 times larger
    ]
    report = run_study([*arguments, f"paths.runs={tmp_path}", "n_trials=8"])
    for trial in report["trials"]:
        if trial["params"]["model.net.n_heads"] == 3:
            assert trial["state"] == "pruned"
            assert "3" in trial["refused"]
        elif trial["params"]["model.module.lr"] == 1:
            assert (trial["state"], trial["failed_share"], trial["mean_skill"]) == ("complete", 1.0, -1.0)
            assert trial["errors"]
        else:
            assert (trial["state"], trial["failed_share"]) == ("complete", 0.0)
    assert len({(t["params"]["model.net.n_heads"], t["params"]["model.module.lr"]) for t in report["trials"]}) >= 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["+sweep.space={model.net.d_modle:{type:int,low:8,high:16}}"], "did you mean 'model.net.d_model'"),
        (["+sweep.space={}"], "space is empty"),
        (["+sweep.space={model.lookback:{type:int,low:16,high:8}}"], "low=16 is not below high=8"),
        (["n_trials=null"], "no budget"),
        (["money=3"], "need a price"),
        (["sweep.sampler=bayes"], "known are tpe, cmaes, gp, random"),
        (["sweep.stacked_trials=0"], "a whole number from 1"),
        (["sweep.inner.n_folds=1"], "a spread needs two fits"),
        (["storage=mysql://x@y/z"], "no known URL"),
        (
            ["storage=postgresql://me:secret@127.0.0.1:9/none", "storage_patience_seconds=0.5"],
            "cannot be reached for 0.5 s",
        ),
        (["study=a/b"], "study='a/b'; a folder's name has at most 100"),
        (["grace_seconds=1"], "live trials count as dead"),
    ],
)
def test_bad_input_is_refused_before_anything_is_fitted(change, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fold_fits, "run_fit", None)
    base = [o for o in NET if not (o.startswith("+sweep.space") and any("sweep.space" in c for c in change))]
    with pytest.raises(SystemExit) as stopped:
        tradsys.config.compose.run_command("tune", work, [*base, f"paths.runs={tmp_path}", "n_trials=2", *change])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error
    assert "secret" not in error


def test_the_worse_half_by_validation_skill_is_pruned_after_an_epoch(tmp_path):
    space = "+sweep.space={model.module.lr:{type:categorical,choices:[0.01,1e-9]}}"
    arguments = [o for o in NET if not o.startswith("+sweep.space")]
    arguments += [space, "sweep.sampler=random", "sweep.n_startup=2", "+sweep.pruner_options.n_min_trials=1"]
    arguments.append("sweep.stacked_trials=1")  # so that each is compared with all before it
    report = run_study([*arguments, "trainer.max_epochs=3", f"paths.runs={tmp_path}", "n_trials=7"])
    pruned = [t for t in report["trials"] if t["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        step, value = trial["curve"][-1]
        finished = [t for t in report["trials"] if t["state"] == "complete" and t["place"] < trial["place"]]
        assert value < np.median([dict(t["curve"])[step] for t in finished])
        assert len(trial["curve"]) < 6  # two folds of three epochs each would be six
        folder = tmp_path / "tune/transformer/trials" / f"{trial['place']:05d}"
        assert json.loads((folder / "metrics.json").read_text())["state"] == "pruned"
        assert not list(folder.rglob("*.ckpt"))


def test_a_full_disk_ends_with_one_line_and_the_trial_goes_on_later(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "fit.json")

    arguments = [*LOGISTIC, f"paths.runs={tmp_path}", "n_trials=2"]
    monkeypatch.setattr(fold_fits, "write_json", full)
    with pytest.raises(SweepError, match=r"no space is left for fit\.json; finished trials and folds are kept"):
        run_study(arguments)
    monkeypatch.undo()
    report = run_study(arguments)
    assert sorted((t["place"], t["state"]) for t in report["trials"] if t["state"] != "fail") == [
        (0, "complete"),
        (1, "complete"),
    ]
    assert [t["cause"] for t in report["trials"] if t["state"] == "fail"] == ["disk full"]


def test_a_folder_of_another_study_is_refused_by_name(tmp_path):
    arguments = [*LOGISTIC, f"paths.runs={tmp_path}", "n_trials=1"]
    run_study(arguments)
    (tmp_path / "tune/studies.db").unlink()  # a new storage over an old folder
    with pytest.raises(SweepError, match=r"belongs to another study of the name .logistic."):
        run_study([*arguments, "sweep.seed=5"])


@pytest.mark.slow
def test_two_processes_share_a_journal_study_and_the_dashboard_reads_it(tmp_path):
    storage = f"journal:///{tmp_path}/study.log"
    arguments = [*LOGISTIC, f"paths.runs={tmp_path}", f"storage={storage}", "n_trials=6", "n_workers=2"]
    report, failed = tune(composed, arguments, [sys.executable, "-m", "tradsys.tune"], checked_overrides)
    assert failed == 0
    assert sorted(t["place"] for t in report["trials"] if t["state"] == "complete") == list(range(6))
    page = (tmp_path / "tune/logistic/report.html").read_text()
    for chart in ("history", "folds", "slices", "parallel"):
        assert f'id="chart-{chart}"' in page
    assert "<strong>SYNTHETIC DATA:</strong> synthetic market with" in page
    opened = open_storage(storage, heartbeat=30, grace=60, patience_seconds=5)
    with make_server("127.0.0.1", 0, optuna_dashboard.wsgi(opened.storage)) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/api/studies", timeout=20) as answer:
            body = json.load(answer)
        thread.join()
    assert [s["study_name"] for s in body["study_summaries"]] == ["logistic"]


@pytest.mark.parametrize("name", ["transformer", "lightgbm", "logistic", "supcon"])
def test_every_sweep_of_conf_searches_paths_that_exist(name):
    base = ["data=synthetic", f"sweep={name}"]
    checked(composed(base).settings.parsed_space, composed, base)
