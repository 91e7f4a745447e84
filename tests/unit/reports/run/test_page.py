import re
from html.parser import HTMLParser

import pytest
import yaml

from tests.unit.reports.quick_page import drawn, quick_render
from tests.unit.reports.sample_pages import addresses
from tests.unit.reports.sample_report import TRAINING_SECTIONS, backtest_report, sample_report
from tradsys.evidence.sequential import bars_to_confirm, live_record
from tradsys.reports.run.page import FIGURES, SECTIONS, render, synthetic_note, write_report
from tradsys.reports.run.strategy_charts import live_records


class Reader(HTMLParser):
    """What a page loads, what it links to, its ids, and its text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.loads, self.ids, self.tags, self.text, self._inside = [], [], [], "", None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._inside = tag
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.loads.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag):
        self._inside = None


@pytest.fixture(scope="module")
def page():
    return render(sample_report())


def words(page):
    return " ".join(Reader(page).text.split())


def test_nothing_is_loaded_from_outside(page):
    assert {load for load in Reader(page).loads if not load.startswith("#")} == {"data:,"}
    assert addresses(page) == []


def test_the_policy_forbids_all_loading(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "connect-src" not in policy


def test_plotly_is_inlined_once_and_the_page_stays_small(page):
    assert page.count("* plotly.js (basic") == 1
    assert len(page.encode()) < 2_000_000


def test_the_verdict_comes_first(page):
    ids = [i for i in Reader(page).ids if i in {"verdict", *(anchor for anchor, _, _ in SECTIONS)}]
    assert ids == ["verdict", *(anchor for anchor, _, _ in SECTIONS)]


def test_every_chart_has_a_reading_guide(page):
    assert page.count('class="plotly-graph-div chart"') == len(drawn())
    assert words(page).count("How to read:") >= len(FIGURES)


def test_synthetic_data_are_named_in_title_bar_banner_verdict_and_every_chart(page):
    assert "<title>no edge (SYNTHETIC DATA)" in page
    assert '<span class="badge">SYNTHETIC DATA</span>' in page
    assert "SYNTHETIC DATA: synthetic market with no edge." in words(page)
    assert "no edgeon synthetic data" in words(page).replace("edge on", "edgeon")
    assert page.count(r"\u003cb\u003eSYNTHETIC DATA\u003c\u002fb\u003e") == len(drawn())


def test_real_data_are_not_called_synthetic():
    assert "SYNTHETIC DATA" not in render(sample_report(synthetic=False))


def test_a_snapshot_in_the_data_is_said_before_the_verdict():
    report = sample_report(synthetic=False)
    assert "POINT IN TIME" not in quick_render(report)
    reported = {"known": ["pe from now.csv: NOT POINT IN TIME, a snapshot"], "known_sha256": {"now.csv": "00ff"}}
    report["provenance"]["data"] |= reported | {"point_in_time": False}
    page = words(quick_render(report))
    assert page.index("NOT POINT IN TIME: pe from now.csv") < page.index(report["verdict"]["reasons"][0])
    report["provenance"]["data"] |= {"known": ["cpi: known 45 days after the month it is for"], "point_in_time": True}
    assert "NOT POINT IN TIME" not in quick_render(report)
    assert "known 45 days after the month it is for" in words(quick_render(report))


def test_the_datas_own_card_is_believed_where_the_report_is_silent():
    report = sample_report(synthetic=False)
    report["provenance"]["data"]["synthetic"] = True
    assert synthetic_note(report) == "a synthetic market"


@pytest.mark.parametrize("gone", TRAINING_SECTIONS)
def test_any_section_of_training_may_be_absent(gone):
    report = sample_report()
    del report[gone]
    reader = Reader(quick_render(report))
    assert f"chart-{gone}" not in reader.ids
    assert "chart-equity" in reader.ids


def test_a_backtest_has_no_headings_without_content():
    reader = Reader(render(backtest_report()))
    charts = {i for i in reader.ids if i.startswith("chart-")}
    own = {name for name in charts if not name.startswith("chart-tear_")}
    assert own - {"chart-settings"} == {"chart-equity", "chart-sharpe", "chart-live"}
    assert not {"models", "reliability", "auditor", "regime", "folds", "importance", "drift"} & set(reader.ids)
    assert {load for load in reader.loads if load.startswith("#")} == {
        "#verdict", "#equity", "#strategies", "#trials", "#provenance",
    }  # fmt: skip


def test_a_page_where_nothing_ever_traded_says_so_for_each_strategy():
    said = words(render(sample_report(idle=True)))
    assert said.count("0 trades in 400 days: it never traded") == 2 * 3  # in both tables of strategies
    assert "3 never traded" in said


def test_a_page_of_unknowns_renders_with_reasons():
    report = sample_report()
    estimate = {"value": None, "low": None, "high": None, "reason": "nothing is known"}
    for row in [*report["strategies"], report["benchmark"]]:
        p = row["performance"]
        gone = [k for k, v in p.items() if isinstance(v, float) and k not in KNOWN_ALWAYS]
        p |= dict.fromkeys(gone) | {"sharpe": estimate, "win_rate": estimate, "n_open_trades": 1}
        p["reasons"] = dict.fromkeys(gone, "nothing is known")
    for row in report["models"]:
        row["metrics"] |= {k: estimate for k, v in row["metrics"].items() if isinstance(v, dict)}
    said = words(render(report))
    assert "nothing is known" in said
    assert "None" not in said
    assert "nan" not in said.lower().split()


KNOWN_ALWAYS = (
    "total_return", "max_drawdown", "drawdown_days", "drawdown_periods", "years", "periods_per_year", "n_trials",
    "expected_max_sharpe",
)  # fmt: skip


def test_names_are_text_wherever_they_stand():
    name = "<script>alert(1)</script>\"'&"
    page = render(sample_report(symbol=name))
    assert "<script>alert" not in page
    assert Reader(page).tags.count("script") == Reader(render(sample_report())).tags.count("script")
    # three tables of strategies, two places of the tear sheet, the pool, the trials, the data's symbols, the config
    assert words(page).count(name) == 9


def test_the_config_can_be_read_back(page):
    config = Reader(page).text.split("Complete resolved config")[1]
    assert yaml.safe_load(config) == sample_report()["provenance"]["config"]


def test_intervals_that_ignore_overlap_say_so():
    report = sample_report()
    warning = "count overlapping labels as independent"
    assert warning in words(quick_render(report))
    assert warning not in words(quick_render(report | {"reliability_overlap": 4.0}))


def test_correlated_trials_show_raw_and_effective_count():
    report = sample_report()
    report["ledger"]["n_effective"] = 2.0
    said = words(quick_render(report))
    assert "the best Sharpe that 3 trials (3, worth 2.0 independent) without any edge" in said
    assert "deflate the DSR (3, worth 2.0 independent" in said


def test_importance_of_a_model_without_skill_is_cautioned():
    report = sample_report()
    caution = "so this shows what it uses, not what predicts"
    skill = report["models"][0]["metrics"]["skill_beyond_level"]
    skill |= {"low": 0.01, "value": 0.02, "high": 0.03}
    assert caution not in words(quick_render(report))
    skill |= {"low": -0.01}
    assert caution in words(quick_render(report))
    skill |= {"low": None, "high": None}
    assert caution in words(quick_render(report))


@pytest.mark.parametrize(("low", "said"), [(0.6, "They differ"), (0.4, "no drift was shown, nor ruled out")])
def test_drift_is_put_in_words(low, said):
    report = sample_report()
    report["drift"]["interval"][0] = low
    assert said in words(quick_render(report))


def test_an_auditor_with_too_few_candidates_is_not_hidden():
    report = sample_report() | {"auditor": {"n": 1, "metrics": None}}
    assert "1 test candidate: too few to evaluate the auditor." in words(quick_render(report))


def test_the_file_is_the_rendered_page(tmp_path, page):
    write_report(sample_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page


def test_a_pools_weights_stand_beside_the_skills_that_earned_them(page):
    def cells(html):
        table = re.search(r'<table id="ensemble-table">.*?</table>', html, re.DOTALL)[0]
        return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", table)[1:]]

    useless, good, base, counts = cells(page)
    no_skill = "-0.0200<small>[-0.0300, -0.0100]</small>"
    assert useless == ["AAA", "0.000", "0.000", "0.000", no_skill, "its skill lies below zero"]
    assert good == ["good", "0.800", "0.800", "0.800", "0.0200<small>[0.0100, 0.0300]</small>", ""]
    assert base == ["base_rate", "0.200", "0.200", "0.200", "", ""]
    assert counts == ["independent samples", "", "321", "321", "", ""]
    plain = sample_report()
    plain["ensemble"] |= {"floor": None, "states": [], "n_folds": None, "confidence": None, "shrinkage": None}
    assert cells(render(plain))[1] == ["good", "0.800"]
    assert "The plain mean of 3 fits" in words(render(plain))


def test_ratios_and_the_live_record_are_on_the_page(page):
    assert "risk-table" in Reader(page).ids
    assert "CVaR 5 % a day" in words(page)
    assert "chart-live" in Reader(page).ids
    assert "The live record to expect" in words(page)
    idle = render(sample_report(idle=True))
    assert "chart-live" not in Reader(idle).ids
    assert "The live record" not in words(idle)


def test_the_live_figure_marks_when_the_record_decides():
    report = sample_report()
    report["strategies"][0]["verdict"]["live"] = live_record(1e-4, 365)  # more than a lifetime
    figure = live_records(report)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    (mark,) = [trace for trace in figure.data if trace.mode == "markers"]
    assert len(lines) == 4
    assert mark.x[0] == pytest.approx(bars_to_confirm(0.12) / 365)
