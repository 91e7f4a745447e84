"""The panel's truth: nothing predicts where nothing is planted, and what is planted is there in the size stated."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from tradsys.core.errors import TradsysError
from tradsys.market.bars import check_bars, content_digest
from tradsys.market.sessions import closes
from tradsys.market.synthetic_panel import SyntheticPanel


def matrix(panel, column):
    """[S, T] of the members, NaN where there is no bar."""
    wide = panel.bars().filter(pl.col("symbol") != "MKT").pivot("symbol", index="time", values=column).sort("time")
    return wide.drop("time").select(pl.all().cast(pl.Float64)).to_numpy().T


def rank_ics(panel, past):
    """Spearman of the past-session return with the next session's, one per session that has both."""
    log_close = np.log(matrix(panel, "close"))
    ics = []
    for t in range(past, log_close.shape[1] - 1):
        before, after = log_close[:, t] - log_close[:, t - past], log_close[:, t + 1] - log_close[:, t]
        both = np.isfinite(before) & np.isfinite(after)
        ics.append(spearmanr(before[both], after[both]).statistic)
    return np.array(ics)


def test_bars_are_bars_on_the_exchange_s_sessions():
    panel = SyntheticPanel(n_symbols=40, n_sessions=300, explosions=0.03, edge=0.1)
    bars = check_bars(panel.bars())
    assert bars.columns == ["symbol", "time", "open", "high", "low", "close", "volume", "attention"]
    sessions = closes("XNYS", date(2018, 1, 2), date(2020, 1, 1))["close"].head(300)
    assert bars.filter(symbol="MKT")["time"].to_list() == sessions.to_list()
    assert bars["symbol"].n_unique() == 41
    assert panel.truth().select("symbol", "time").equals(bars.select("symbol", "time"))


def test_the_same_seed_gives_the_same_bars_and_another_gives_others():
    first, second = (SyntheticPanel(n_symbols=5, n_sessions=60, seed=3) for _ in range(2))
    assert content_digest(first.bars()) == content_digest(second.bars())
    assert content_digest(SyntheticPanel(n_symbols=5, n_sessions=60, seed=4).bars()) != content_digest(first.bars())


def test_prices_are_martingales_where_nothing_is_planted():
    panel = SyntheticPanel(n_symbols=400, n_sessions=500, deaths=0.0, late=0.0)
    close = matrix(panel, "close")
    market = panel.bars().filter(symbol="MKT")["close"].to_numpy()
    growth, shared = close[:, 1:] / close[:, :-1], market[1:] / market[:-1] - 1
    # the market's own luck in 500 sessions is taken out; what is left has mean one, give or take 3 deviations
    own = growth.mean(axis=0) - 1 - shared
    assert abs(own.mean()) < 3 * own.std() / np.sqrt(len(own))
    ics = rank_ics(panel, 20)
    assert abs(ics.mean()) < 3 * ics.std() / np.sqrt(len(ics) / 4)


def test_the_planted_edge_is_the_rank_s_own():
    sizes = []
    for edge in (0.1, 0.2):
        panel = SyntheticPanel(n_symbols=300, n_sessions=300, edge=edge, deaths=0.0, late=0.0)
        ics = rank_ics(panel, 20)
        assert ics.mean() > 5 * ics.std() / np.sqrt(len(ics))
        sizes.append(ics.mean())
        drift = (
            panel.truth().filter(pl.col("symbol") != "MKT").pivot("symbol", index="time", values="drift").sort("time")
        )
        late = drift.drop("time").to_numpy()[200]
        assert (late.min(), late.max()) == pytest.approx((-edge * (1 - 1 / 300), edge * (1 - 1 / 300)))
        log_close = np.log(matrix(panel, "close"))
        assert spearmanr(late, log_close[:, 199] - log_close[:, 179]).statistic == pytest.approx(1.0)
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.35)


def test_the_edge_changes_no_draw():
    quiet, planted = (SyntheticPanel(n_symbols=8, n_sessions=120, edge=edge) for edge in (0.0, 0.3))
    assert quiet.bars()["attention"].equals(planted.bars()["attention"])
    early = pl.col("time") < quiet.bars()["time"].unique().sort()[21]
    assert quiet.bars().filter(early).drop("volume").equals(planted.bars().filter(early).drop("volume"))


def test_explosions_come_at_the_rate_asked_and_from_compression():
    panel = SyntheticPanel(n_symbols=400, n_sessions=800, explosions=0.03)
    lift = panel.planted_lift()
    assert lift.all_rows == pytest.approx(0.03, rel=0.1)
    assert lift.lift == pytest.approx(lift.compressed / lift.all_rows)
    assert 8 < lift.lift < 16
    assert SyntheticPanel(n_symbols=20, n_sessions=100).planted_lift().n_explosions == 0


def test_an_explosion_rises_by_what_was_said_and_a_squeeze_is_quiet():
    panel = SyntheticPanel(n_symbols=300, n_sessions=600, explosions=0.03, rise=0.4, deaths=0.0, late=0.0)
    phase = panel.truth().filter(pl.col("symbol") != "MKT").pivot("symbol", index="time", values="phase").sort("time")
    phase = phase.drop("time").to_numpy().T
    log_close = np.log(matrix(panel, "close"))
    moves, attention = np.diff(log_close, axis=1), matrix(panel, "attention")
    bursting = phase == "burst"
    first = bursting & ~np.roll(bursting, 1, axis=1)
    rises = []
    for member, start in np.argwhere(first):
        end = start + int(np.argmin(bursting[member, start:])) if not bursting[member, start:].all() else phase.shape[1]
        rises.append(log_close[member, end - 1] - log_close[member, start - 1])
    assert len(rises) == panel.planted_lift().n_explosions
    assert np.mean(rises) == pytest.approx(np.log(1.4) * 1.6, rel=0.1)
    assert np.mean(np.array(rises) > np.log(1.4)) > 0.9
    quiet, usual = moves[phase[:, 1:] == "squeeze"].std(), moves[phase[:, 1:] == "normal"].std()
    assert quiet < 0.5 * usual
    member, start = np.argwhere(first).T
    assert np.median(attention[member, start - 1]) > 2 * np.median(attention)


def test_members_die_and_are_listed_late_at_the_shares_asked():
    panel = SyntheticPanel(n_symbols=2000, n_sessions=504, deaths=0.1, late=0.2)
    lives = panel.bars().group_by("symbol").agg(first=pl.col("time").min(), last=pl.col("time").max())
    members = lives.filter(pl.col("symbol") != "MKT")
    ends = panel.bars()["time"].max()
    assert (members["first"] > members["first"].min()).mean() == pytest.approx(0.2, abs=0.03)
    died = members.filter(pl.col("last") < ends)
    assert died.height / members.height == pytest.approx(1 - 0.9**1.95, abs=0.03)  # late ones live through less
    fell = panel.bars().group_by("symbol").agg(fall=(pl.col("close").last() / pl.col("close").get(-6)).log())
    falls = died.join(fell, on="symbol")["fall"]
    assert (falls < np.log(0.4)).mean() == pytest.approx(0.5, abs=0.1)


def test_what_it_says_of_itself():
    reported = SyntheticPanel(n_symbols=3, n_sessions=30, edge=0.2, explosions=0.02).describe()
    assert reported["synthetic"] is True
    assert reported["note"] == "synthetic panel with a planted edge of 0.2 and planted explosions of 0.02"


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"first": "soon"},
        {"calendar": 7},
        {"market_symbol": None},
        {"rise": "much"},
        {"n_symbols": 0},
        {"n_sessions": 1},
        {"n_sessions": 10**9},
        {"edge": 2.0},
        {"explosions": 0.2},
        {"rise": 0.0},
        {"deaths": 1.0},
    ],
)
def test_fields_out_of_range(wrong):
    with pytest.raises(TradsysError, match=rf"synthetic panel: {next(iter(wrong))}( of all .*)?="):
        SyntheticPanel(**wrong)
