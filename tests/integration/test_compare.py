"""A comparison through its command, shrunk: whole, resumed, killed, and the same on worker processes."""

import contextlib
import json
import os
import re
import signal
import time

import numpy as np
import pytest

from tests.forks import forks
from tests.integration.conftest import inside
from tradsys.compare import work
from tradsys.config.compose import ConfigError, compose, help_text, studies
from tradsys.config.copies import written
from tradsys.core.errors import TradsysError
from tradsys.reports.comparison.page import notes
from tradsys.research.pipeline.trial_ledger import TrialLedger

SHRUNK = [
    "+study=losses",
    "data.n_bars=2200",
    "data.source.symbols=[SYN0]",
    "trainer.max_epochs=1",
    "study.split.n_folds=2",
    "study.n_draws=200",
    "study.seeds=[0,1]",
    "study.reference=logistic",
    "~study.variants",
]


def listed(*overrides):
    return "[" + ",".join(f'"{o}"' for o in overrides) + "]"


LOGISTIC = f"logistic:{{overrides:{listed('model=logistic')},seeds:[0]}}"
NET = listed(
    "model=transformer", "model.lookback=8", "model.net.d_model=8", "model.net.n_heads=2", "model.net.n_layers=1"
)
SMALL_TREES = listed("model=lightgbm", "model.n_estimators=5")


def variants(**chosen):
    """Overrides that replace the study's variants."""
    return [*SHRUNK, "+study.variants={" + ",".join([LOGISTIC, *(f"{n}:{a}" for n, a in chosen.items())]) + "}"]


KINDS = {"trees": SMALL_TREES, "net": NET, "volatility": listed("agent=volatility", "model=logistic")}
FEWER = [*variants(**KINDS), "study.seeds=[0]"]  # one fit of each kind in each of the two folds


def table(folder):
    return json.loads((folder / "runs" / "compare" / "latest" / "table.json").read_text())


def fits(folder):
    return sorted(folder.glob("runs/compare/losses_*/fits/*/*.json"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two variants of one YAML, one compared with the other, a net, and an agent with a label of its own."""
    folder = tmp_path_factory.mktemp("compared")
    argv = variants(**KINDS, twin=f"{{overrides:{SMALL_TREES},against:trees}}")
    with inside(folder):
        work(argv)
    return folder, argv


def test_two_names_of_one_variant_differ_by_exactly_nothing(compared):
    folder, _ = compared
    reported = {variant["name"]: variant for variant in table(folder)["variants"]}
    gap = reported["twin"]["difference"]
    assert (gap["value"], gap["low"], gap["high"]) == (0, 0, 0)
    assert reported["twin"]["p"] == 1
    assert reported["twin"]["skill_beyond_level"] == reported["trees"]["skill_beyond_level"]
    (said,) = [c["text"] for c in table(folder)["conclusions"] if c["variant"] == "twin"]
    assert said == (
        "no difference shown between twin and trees (+0.0000, +0.0000 to +0.0000, 2 seeds); "
        "the two have the same losses"
    )


def test_the_table_holds_what_the_fits_say(compared):
    import polars as pl
    from scipy.optimize import minimize_scalar
    from scipy.special import expit, logit
    from sklearn.metrics import log_loss

    folder, _ = compared
    reported = {variant["name"]: variant for variant in table(folder)["variants"]}
    assert set(reported) == {"logistic", "trees", "twin", "net", "volatility"}
    for name, variant in reported.items():
        skills = []
        for seed in variant["seeds"]:
            found = sorted(folder.glob(f"runs/compare/losses_*/fits/{name}_*/fold_*_seed_{seed}.json"))
            loss = base = 0.0  # at the level of each test block
            for path in found:
                rows = pl.read_parquet(path.with_suffix(".parquet"))
                y = rows["y"].to_numpy()
                score = logit(rows["proba"].to_numpy()[:, 1])
                levels = minimize_scalar(
                    lambda a: log_loss(y, expit(score + a)),  # noqa: B023
                    bounds=(-5, 5), method="bounded", options={"xatol": 1e-10},
                )  # fmt: skip
                loss += len(y) * levels.fun
                base += len(y) * log_loss(y, np.full(len(y), y.mean()))
            assert len(found) == 2
            skills.append(1 - loss / base)
        assert variant["skill_beyond_level"]["value"] == pytest.approx(np.mean(skills), abs=1e-9)
        if len(skills) > 1:
            assert variant["seed_sd"] == pytest.approx(np.std(skills, ddof=1), abs=1e-9)
    assert reported["trees"]["difference"]["value"] == pytest.approx(
        reported["trees"]["skill_beyond_level"]["value"] - reported["logistic"]["skill_beyond_level"]["value"]
    )
    assert reported["net"]["n_parameters"] > 0
    assert reported["logistic"]["n_parameters"] is None


def test_variants_of_one_question_share_their_rows_and_others_are_marked(compared):
    folder, _ = compared
    reported = {variant["name"]: variant for variant in table(folder)["variants"]}
    assert len({reported[n]["n_samples"] for n in ("logistic", "trees", "net")}) == 1
    assert [n for n, variant in reported.items() if variant["own_rows"]] == ["volatility"]
    place = folder / "runs" / "compare" / "latest"
    assert "volatility *" in (place / "table.md").read_text()
    assert "evaluated on its own rows" in (place / "report.html").read_text()


def test_fits_of_other_code_are_named_with_the_folder_that_holds_them(compared):
    folder, _ = compared
    found = table(folder)
    found["variants"][0]["code"] = ["0123abcd4567"]
    said = next(line for line in notes(found) if "0123abcd4567" in line)
    (place,) = re.findall(r"delete `(\w+)` to run all again", said)
    assert (folder / "runs" / "compare" / "latest" / place).is_dir()


def test_the_best_of_many_is_tested_against_the_reference(compared):
    folder, _ = compared
    found = table(folder)["superiority"]
    assert found["n_variants"] == 4  # the agent has rows of its own
    assert found["best"] in {"trees", "twin", "net"} or found["reason"]
    page = (folder / "runs" / "compare" / "latest" / "report.html").read_text()
    assert "Superior predictive ability" in page


def test_a_rerun_runs_nothing_and_looks_no_second_time(compared, capsys):
    folder, argv = compared
    before = {path: path.stat().st_mtime_ns for path in fits(folder)}
    first = table(folder)
    with inside(folder):
        work(argv)
    assert {path: path.stat().st_mtime_ns for path in fits(folder)} == before
    again = table(folder)
    assert again["variants"] == first["variants"]
    looks = TrialLedger(folder / "runs" / "ledger.db").entries()
    assert [row["purpose"] for row in looks] == ["compare"] * 5
    assert {row["subject"] for row in looks} == {variant["name"] for variant in first["variants"]}
    assert "SYNTHETIC DATA" in capsys.readouterr().out


def test_another_seed_adds_its_fits_only(compared):
    folder, argv = compared
    before = {path: path.stat().st_mtime_ns for path in fits(folder)}
    with inside(folder):
        work([*argv, "study.seeds=[0,1,2]"])
    after = {path: path.stat().st_mtime_ns for path in fits(folder)}
    assert {path: after[path] for path in before} == before
    added = set(after) - set(before)
    assert len(added) == 2 * 4  # two folds of the four variants that follow study.seeds
    assert all(path.stem.endswith("_seed_2") for path in added)


def test_a_killed_comparison_goes_on_and_ends_as_if_never_killed(compared, tmp_path):
    """SIGKILL after the first whole fit: what is done stays, and every forecast comes out to the bit."""
    folder, _ = compared
    begun = forks().start(["-m", "tradsys.compare", *FEWER], tmp_path)
    try:
        deadline = time.monotonic() + 600
        while not fits(tmp_path) and begun.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in fits(tmp_path)}
    assert 0 < len(kept) < 8
    with inside(tmp_path):
        work(FEWER)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    name = {path.relative_to(tmp_path): path for path in fits(tmp_path)}
    assert len(name) == 8
    for relative, path in name.items():
        whole = (folder / relative).with_suffix(".parquet")
        assert path.with_suffix(".parquet").read_bytes() == whole.read_bytes(), relative
    assert not list(tmp_path.glob("runs/compare/losses_*/work/*/*"))  # checkpoints go when their fit is done


def test_workers_say_what_one_process_says(compared, tmp_path):
    folder, _ = compared
    with inside(tmp_path):
        work([*FEWER, "study.n_jobs=2"])
    found = [path.relative_to(tmp_path) for path in fits(tmp_path)]
    assert len(found) == 8
    for path in found:
        one, other = ((place / path).with_suffix(".parquet") for place in (folder, tmp_path))
        assert one.read_bytes() == other.read_bytes(), path


def test_every_study_composes_and_every_variant_of_it():
    """Every list of overrides is composed, and every data set of a study; not all pairs of the two.

    A study sets nothing outside its own key, so that what two studies ask in the same words is one question.
    """
    from tradsys.compare import _variant
    from tradsys.config.compose import build

    plain, seen = _beside_study(compose("compare", ["+study=losses"])), set()
    for name in studies("compare"):
        config = compose("compare", [f"+study={name}"])
        assert _beside_study(config) == plain
        settings = build(config)["study"]
        assert settings.name == name
        for variant, choice in settings.choices.items():
            parts = {("data", *settings.common), ("variant", *choice.overrides)}
            if any(o.lstrip("+~").startswith(("data", "events")) for o in choice.overrides):
                parts.add(("both", *settings.common, *choice.overrides))
            if not parts <= seen:
                assert _variant(variant, choice, settings, []).experiment.model.lookback <= 240
            seen |= parts
    assert len(seen) > 60


def _beside_study(config):
    return {key: value for key, value in written(config).items() if key != "study"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "study"),
        (["+study=power"], "study 'power' is one of audit's; compare takes agents, "),
        (["+study=lossess"], "did you mean 'losses'?"),
        (["~study.variants", '+study.variants={logistic:["model=logistic"]}', "+study=losses"], "two at least"),
        (["+study=baselines", "study.reference=logistik"], "reference 'logistik' is not among the variants"),
        (["+study=baselines", "study.seeds=[]"], "has the seeds []"),
        (["+study=baselines", "study.seeds=[1,1]"], "each once"),
        (["+study=baselines", "+study.variants.odd={overrides:[],sedes:[0]}"], "'sedes'"),
        (["+study=baselines", '+study.variants.odd=["model=lightgbmm"]'], "variant 'odd' of study 'baselines'"),
        (["+study=baselines", '+study.variants.odd=["model.lookbak=3"]'], "variant 'odd' of study 'baselines'"),
        (["+study=baselines", "+study.variants.odd={overrides:[],against:nobody}"], "compared with 'nobody'"),
        (["+study=baselines", "study.backend=dask"], "backend 'dask'"),
        (["+study=baselines", "study.n_jobs=0"], "n_jobs=0"),
    ],
)
def test_one_clear_error_before_any_fit(tmp_path, argv, said):
    with inside(tmp_path), pytest.raises((ConfigError, TradsysError)) as refused:
        work(argv)
    assert said in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_audit_refuses_a_study_of_compare():
    with pytest.raises(ConfigError, match="study 'losses' is one of compare's; audit takes null, power"):
        compose("audit", ["study=losses"])


def test_help_lists_the_studies_of_each_command():
    from tradsys.audit import work as audit_work

    helps = (help_text("compare", work), help_text("audit", audit_work))
    mine, theirs = (text.partition("\n  study ")[2].partition("\n  trainer ")[0] for text in helps)
    assert "losses" in mine
    assert "power" not in mine
    assert theirs.split() == ["null", "|", "power"]


def test_ray_is_asked_for_only_when_chosen(tmp_path):
    with inside(tmp_path), pytest.raises(TradsysError, match="needs the module ray"):
        work([*variants(trees=SMALL_TREES), "study.backend=ray"])


def test_a_fold_of_one_class_is_named_with_its_variant(tmp_path):
    with inside(tmp_path), pytest.raises(TradsysError) as refused:
        work(variants(steep=listed("model=logistic", "labels.upper=12", "labels.lower=0.3")))
    assert "variant 'steep', fold" in str(refused.value)
