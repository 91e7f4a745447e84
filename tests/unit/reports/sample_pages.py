"""One page of every kind from small made-up content, and the check that every page must pass."""

import base64
import copy
import functools
import hashlib
import re
from types import SimpleNamespace

from tests.unit.reports.daily import test_page as daily
from tests.unit.reports.diagnosis.test_page import diagnosis
from tests.unit.reports.sample_report import sample_report
from tradsys.reports import power_study_page
from tradsys.reports.comparison.page import render as render_comparison
from tradsys.reports.daily.evaluation_page import render as render_evaluation
from tradsys.reports.daily.page import render as render_daily
from tradsys.reports.diagnosis.page import render as render_diagnosis
from tradsys.reports.journal.page import render_html as render_journal
from tradsys.reports.run.page import render as render_run
from tradsys.reports.sweep.page import render as render_sweep
from tradsys.reports.trading.page import render as render_trading

MOST_BYTES = 2_000_000
estimate = daily.estimate
PROVENANCE = {
    "created": "2024-01-01T00:00:00+00:00", "code_sha": "abc", "config_digest": "d", "data": {"name": "made up"},
    "packages": {"numpy": "2"}, "python": "3.11", "machine": "two cores", "config": {"seed": 7}, "command": "tradsys x",
}  # fmt: skip


def comparison():
    """Two variants over two folds."""
    folds = [{"start": f"202{k}-01-01T00:00:00", "end": f"202{k}-06-01T00:00:00"} for k in (1, 2)]
    variant = {
        "own_rows": False, "is_reference": False, "against": "base", "p": 0.2, "p_holm": 0.2, "rank": 1, "seeds": [1],
        "skill_beyond_level": estimate(0.01, -0.01, 0.03), "skill_over_base_rate": 0.01, "seed_sd": None,
        "fold_sd": 0.01, "auc": 0.52, "n_parameters": 100, "seconds_per_fit": 1.5, "code": ["abc"], "peak_mb": 9.0,
        "difference": estimate(0.01, 0.004, 0.02), "fold_skill": [0.01, -0.02], "n_samples": 1000,
    }  # fmt: skip
    variants = [
        variant | {"name": "net"},
        variant | {"name": "logistic", "difference": estimate(-0.01, -0.03, 0.01), "own_rows": True},
        variant | {"name": "base", "is_reference": True, "difference": None, "against": None},
    ]
    return {
        "superiority": {"p": 0.2, "n_variants": 3, "best": "net", "reason": None},
        "name": "variants", "question": "Which?", "reference": "base", "n_folds": 2, "folds": folds,
        "variants": variants,
        "synthetic": None, "confidence": 0.95, "block_length": 12.0, "n_times": 500, "n_comparisons": 2,
        "no_intervals": None, "command": "tradsys compare", "provenance": PROVENANCE, "folder": "runs/compare/x",
        "conclusions": [{"kind": "better", "text": "net is better than base"}],
    }  # fmt: skip


def sweep():
    """Twelve finished trials over three parameters, the first one picked."""
    trials = [
        {
            "place": k, "state": "complete", "lower_bound": 0.02 - 0.003 * k, "mean_skill": 0.03 - 0.002 * k,
            "spread_folds": 0.01, "spread_seeds": 0.01, "failed_share": 0.0, "seconds": 3.0, "peak_mb": 100.0,
            "n_parameters": 1000, "checkpoints_used": 0, "in_front": k == 0, "skills": [[0.02, 0.01], [0.03, 0.0]],
            "refused": None,
            "params": {"model.lr": 10 ** (-4 + k / 4), "model.width": 16 + k, "model.kind": "ab"[k % 2]},
        }
        for k in range(12)
    ]  # fmt: skip
    space = {
        "model.lr": {"type": "log"}, "model.width": {"type": "int"},
        "model.kind": {"type": "categorical", "choices": ["a", "b"]},
    }  # fmt: skip
    return {
        "study": "demo", "synthetic": "no edge was planted", "trials": trials, "sampler": "tpe", "machine_hours": 0.2,
        "space": space, "importances": {"fanova": {"model.lr": 0.7, "model.width": 0.2, "model.kind": 0.1}}, "best": 0,
        "seeds": [1, 2], "storage": "sqlite", "begun": "2024-01-01", "code_sha": "abc", "identity": "x",
        "overrides": [], "overfitting": {"pbo": None, "reason": "few trials"},
        "confidence": 0.9, "n_retried": 0, "rematch": None, "objectives": ["skill"], "pruner": "none",
    }  # fmt: skip


def study():
    """The verdict at one edge that is nothing and one that is large."""
    share = estimate(0.04, 0.02, 0.07)
    look = {"look": "chosen", "n_trials": 6.0, "n_effective": 3.0, "n": 100, "n_edge": 4, "share": share}
    edges = [{"edge": e, "sharpe": estimate(20 * e, 0.0, 1.0), "looks": [look], "n_refused": 0} for e in (0.0, 0.1)]
    return {
        "name": "power", "n_markets": 200, "years": 4.0, "test_years": 1.0, "by_edge": edges, "folder": "runs/x",
        "false_edges": {"n_edge": 4, "n": 100, "most": 0.05, "share": share}, "smallest": None,
    }  # fmt: skip


def journal():
    """One experiment with a verdict."""
    model = {"name": "net", "skill_beyond_level": estimate(0.01, None, None) | {"reason": "too few"}}
    strategy = {
        "name": "sniper", "sharpe": estimate(0.4, -0.5, 1.2), "dsr": 0.2, "n_trials": 3, "dsr_today": 0.1,
        "n_trials_today": 7, "n_trades": 40, "verdict": "no edge",
    }  # fmt: skip
    experiment = {
        "number": 1, "run": "x", "task": "train", "when": "2024-01-01T00:00:00+00:00", "who": "me", "code_sha": "abc",
        "question": "Is there an edge?", "gone": None, "unfinished": None, "span": ["2023-01-01", "2023-06-01"],
        "looks": [{"purpose": "train", "subjects": ["sniper"]}], "data": "made up", "compared_with": "w",
        "changed": [{"key": "model.lr", "before": 0.1, "after": None}], "models": [model], "strategies": [strategy],
        "verdict": {"kind": "no edge", "reasons": ["it is none"], "needs": None}, "overtaken": ["by more trials"],
        "confidence": 0.95, "link": "runs/x/report.html",
    }  # fmt: skip
    return {
        "created": "2024-01-02T00:00:00+00:00", "problems": [], "n_looks": 1, "n_trials": 1, "experiments": [experiment]
    }  # fmt: skip


def evaluation():
    """The equity and books of a run's sample report under one horizon."""
    run, horizon = sample_report(), daily.horizon("5d", 5)
    part = {"first": "2021-01-01", "last": "2021-06-01", "n": 500} | dict.fromkeys(
        ("auc", "skill_beyond_level", "skill_over_base_rate"), estimate(0.5, 0.4, 0.6)
    )
    books = [row | {"capacity": {"capital": 3e6}, "n_died": 2} for row in run["strategies"]]
    return run | {
        "name": "foundry", "created": "2024-01-01T00:00:00+00:00", "question": "Over the years?", "notes": ["Careful."],
        "refit": {"n": 0, "at": "2022-01-01T00:00:00+00:00", "findings": []}, "provenance": PROVENANCE,
        "horizons": {"5d": horizon["metrics"] | {"n": 5000, "by_fold": [part, part]}}, "seconds": {"fit": 2.0},
        "strategies": books, "synthetic": "a made-up market",
    }  # fmt: skip


def trading():
    """A paper bot with an open position and a halt."""
    days = [f"2024-01-{k:02d}T00:00:00+00:00" for k in range(1, 29)]
    return SimpleNamespace(
        settings={
            "name": "bot", "mode": "paper", "strategy": "sniper", "profile": "p > 0.6", "bundle_path": "models/b",
            "verdict": "no edge", "exchange": "none",
        },
        time=days, equity=[1 + 0.001 * k for k in range(28)], exposure=[0.5] * 28,
        band=(days, [0.98] * 28, [1.05] * 28),
        positions=[{"symbol": "BTC", "side": 1, "state": "open", "quantity": 0.5, "entry": 100.0, "last": 101.0}],
        decisions=[{"time": days[-1], "symbol": "BTC", "probability": 0.61, "action": "enter long"}], trades=[],
        slippage=[{"time": days[3], "bps": 1.5, "symbol": "BTC"}],
        notes=[{"written": days[2], "kind": "halt", "words": "a drawdown"}], halts={"drawdown": "5 % were lost"},
        live={
            "date": days, "mean": [1e-3] * 28, "low": [-2e-3] * 28, "high": [4e-3] * 28, "expected": 5e-4,
            "text": "as the backtest says",
        },
        health={"bars": 28}, n_trades=0,
        watch=[
            {"check": "features, PSI", "live": "1 of 48 moved: vol_24 1.93", "reported": "as far as blocks of training",
             "state": "OUT", "note": ""},
            {"check": "scores, PSI", "live": "", "reported": "", "state": "not known", "note": "12 of 41 bars"},
        ],
    )  # fmt: skip


KINDS = {
    "run": lambda: render_run(sample_report()),
    "comparison": lambda: render_comparison(comparison()),
    "sweep": lambda: render_sweep(sweep()),
    "study": lambda: power_study_page.render(study()),
    "journal": lambda: render_journal(journal()),
    "daily": lambda: render_daily(copy.deepcopy(daily.REPORT)),
    "diagnosis": lambda: render_diagnosis(diagnosis()),
    "evaluation": lambda: render_evaluation(evaluation()),
    "trading": lambda: render_trading(trading()),
}


@functools.cache
def page_of(kind):
    """The HTML of a kind of page, drawn once."""
    return KINDS[kind]()


def addresses(page):
    """Every address that a page itself holds, the charts' library (known by its hash) left out."""
    own = page
    for script in scripts(page):
        if script.startswith("/**\n* plotly.js"):
            own = own.replace(script, "")
    return re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*|@import|url\(", own)


def scripts(page):
    """The scripts that a browser would run."""
    return re.findall(r"<script>(.*?)</script>", page, re.DOTALL)


def faults(page):
    """All that is wrong with a page of any kind, in words."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts(page)}
    allowed = set(re.findall(r"'sha256-([^']+)'", policy[1] if policy else ""))
    tags = {tag for tag in re.findall(r"<script[^>]*>", page) if tag != "<script>"}
    found = {
        "no content security policy": policy is None,
        "the policy lets things load": policy is not None and "default-src 'none'" not in policy[1],
        "the policy lets any script run": policy is not None and "'unsafe-inline'" in policy[1].split("style-src")[0],
        "a script that the policy does not know": hashes - allowed,
        "a script of another kind": {tag for tag in tags if 'type="application/json"' not in tag},
        "an event handler": re.findall(r"<[^>]+ on\w+=", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)),
        "an address": addresses(page),
        f"above {MOST_BYTES} bytes": len(page.encode()) > MOST_BYTES,
        "not of the base template": 'data-page="tradsys"' not in page or page.count("<h1>") != 1,
        "no dark theme": "prefers-color-scheme:dark" not in page,
        "no width for small screens": 'name="viewport"' not in page or "max-width:700px" not in page,
        "no rules for print": "@media print" not in page,
        "a table that cannot scroll": re.findall(
            r"(?<!<div class=\"scroll\">)(?<!<div class=\"scroll tall\">)<table[^>]*>", page
        ),
        "a style of its own": page.count("<style>") != 1,
    }
    return [f"{what}: {value}" if not isinstance(value, bool) else what for what, value in found.items() if value]
