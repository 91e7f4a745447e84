"""The quick study: rows are resumed, panels are martingales unless planted, edges are found, unknown kinds refused."""

import json

import numpy as np
import pytest

from tradsys.core.errors import TradsysError
from tradsys.reports.power_study_kinds import kinds_table
from tradsys.research.power_study import quick_study
from tradsys.research.power_study.markets import EVALUATIONS
from tradsys.research.power_study.quick_panel import PANEL_KINDS, _panel, draw_panel, panel_strategies
from tradsys.research.power_study.quick_research import Row, Setting, research
from tradsys.research.power_study.quick_study import study_kinds

YEARS = 2.0


def test_a_study_of_kinds_goes_on_where_it_was_and_names_what_is_broken(tmp_path, monkeypatch):
    seen = []

    def counted(setting, seed):
        seen.append((setting.kind, seed))
        return research_row(seed, won=setting.kind == "garch" and seed % 2 == 0)

    monkeypatch.setattr(quick_study, "research", counted)
    first = study_kinds(["garch", "daily_panel"], ["steady", "decaying"], [0.0], 3, tmp_path)
    assert (len(seen), first["broken"]) == (6, ["garch"])
    more = study_kinds(["garch", "daily_panel"], ["steady"], [0.0], 25, tmp_path)
    assert len(seen) == len(set(seen)) == 50
    assert [cell["n"] for cell in more["cells"]] == [25, 25]
    assert [look["look"] for look in more["cells"][0]["looks"]] == list(EVALUATIONS)
    again = study_kinds(["daily_panel"], ["steady"], [0.0], 3, tmp_path)
    assert len(seen) == 50
    assert (again["cells"][0]["n"], again["broken"]) == (3, [])
    assert json.loads((tmp_path / "summary.json").read_text()) == again
    assert kinds_table(more).row_count == 2


def research_row(seed, *, won):
    return Row(seed=seed, edges=(won,) * 4, n_tried=(1, 4, 20, 40), sharpe=1.0, p_value=0.5, n_trades=50,
                           oracle=won, test_years=1.0, seconds=0.1)  # fmt: skip


@pytest.mark.parametrize(("kinds", "plants"), [(["nothing"], ["steady"]), (["garch"], ["slow"]), ([], ["steady"])])
def test_unknown_kinds_and_plants_are_refused(tmp_path, kinds, plants):
    with pytest.raises(TradsysError, match="set study"):
        study_kinds(kinds, plants, [0.0], 1, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", PANEL_KINDS)
def test_a_panel_without_an_edge_pays_no_book_and_one_with_it_does(kind):
    n_times = 700
    for edge, least, most in ((0.0, -1.5, 1.5), (0.3, 4.0, np.inf)):
        panel = draw_panel(kind, n_times, edge=edge, seed=1)
        daily, beyond, _, n_trades = panel_strategies(panel, reversal(panel), 0.0)
        score = beyond[:, 2].mean() / beyond[:, 2].std() * np.sqrt(len(beyond))
        assert least < score < most
        assert daily.shape == beyond.shape == (n_times - int(0.6 * n_times) - panel.horizon - 1, 20)
        assert (n_trades > 30).all()


def reversal(panel):
    """The planted score, as a probability."""
    return ((1 - panel.x[:, :, 1]) / 2).ravel().astype(float)


def test_costs_are_paid_for_what_changes_hands():
    panel = draw_panel("twenty_names", 400, edge=0.0, seed=3)
    free, paid = (panel_strategies(panel, reversal(panel), cost)[0] for cost in (0.0, 0.01))
    # at most both sides of a whole book a day, and never a gain
    assert ((free - paid) >= -1e-15).all()
    assert (free - paid).max() <= 0.01 + 1e-12
    assert (free - paid).mean() > 0.001


def test_what_is_traded_never_reads_the_next_return():
    panel = draw_panel("daily_panel", 400, edge=0.1, seed=2)
    cut = 350
    other = panel.returns.copy()
    other[cut:] = np.random.default_rng(0).normal(0, 0.02, other[cut:].shape)
    changed = _panel(other, panel.horizon)
    assert (changed.x[:cut] == panel.x[:cut]).all()
    assert (changed.y[: cut - panel.horizon] == panel.y[: cut - panel.horizon]).all()


def test_the_process_finds_a_large_edge_and_the_same_seed_gives_the_same_row():
    setting = Setting("twenty_names", edge=0.25, years=YEARS, n_draws=300)
    row = research(setting, 0)
    assert row.edges[-1]
    assert row.sharpe > 2
    again = research(setting, 0)
    assert (again.edges, again.sharpe, again.p_value) == (row.edges, row.sharpe, row.p_value)


def test_the_process_sees_nothing_in_panels_without_an_edge():
    rows = [research(Setting("daily_panel", years=YEARS, n_draws=300), seed) for seed in range(4)]
    assert sum(row.edges[-1] for row in rows) <= 1
    assert all(row.n_tried[-1] >= 30 for row in rows)
