"""The report in a real browser: every chart drew, the console is silent, nothing but the file itself was asked for."""

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

from tests.unit.reports.sample_pages import KINDS, page_of
from tests.unit.reports.sample_report import backtest_report, sample_report
from tradsys.reports.run import tear_sheet_charts
from tradsys.reports.run.page import FIGURES, has, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: none of chromium, chromium-browser, google-chrome is installed"
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_SECONDS = 60
# the browser reads commands from descriptor 3 and answers on 4
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
# marks that a reader can see: drawn paths with an area or a length
CHARTS = """Object.fromEntries([...document.querySelectorAll('.plotly-graph-div')].filter(div => div.offsetParent)
  .map(div => [div.id,
  div.querySelector('svg.main-svg') === null ? 0 :
  [...div.querySelectorAll('.scatterlayer path, .barlayer path')].filter(path => {
    const box = path.getBoundingClientRect();
    return path.getAttribute('d') && box.width + box.height > 0 }).length]))"""
OVERLAPS = """[...document.querySelectorAll('.plotly-graph-div')].flatMap(div => {
  const boxes = [...div.querySelectorAll('.cartesianlayer > .subplot .gridlayer, .bglayer .bg')].map(e =>
    e.getBoundingClientRect()).filter(b => b.width > 0 && b.height > 0);
  return boxes.some((a, i) => boxes.some((b, k) => k > i && (a.right <= b.left + 1 || b.right <= a.left + 1)))
    ? [div.id] : [] })"""
SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


# words of a chart that lie over others of theirs, or are cut at its left or right edge
COLLISIONS = """[...document.querySelectorAll('.plotly-graph-div')].filter(div => div.offsetParent).flatMap(div => {
  const box = text => text.getBoundingClientRect(), frame = box(div), found = [];
  const wanted = /^(x\\d*tick|g-x\\d*title|g-gtitle|annotation)$/;
  const words = [...div.querySelectorAll('g')].filter(g => wanted.test(g.getAttribute('class'))).flatMap(g =>
    [...g.querySelectorAll('text')].map(t => ({ kind: g.getAttribute('class'), said: t.textContent, at: box(t) })));
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const ticks = (a, b) => a.kind === b.kind && /tick/.test(a.kind) && [a, b].every(w => w.at.width > w.at.height);
  const title = (a, b) => a.kind !== b.kind && /gtitle/.test(a.kind + b.kind);
  words.forEach((a, k) => {
    if (a.at.left < frame.left - 2 || a.at.right > frame.right + 2) found.push(`${div.id}: ${a.said} is cut`);
    words.slice(0, k).forEach(b => {
      if ((ticks(a, b) || title(a, b)) && over(a.at, b.at)) found.push(`${div.id}: ${a.said} over ${b.said}`);
    });
  });
  return found;
})"""


BUTTONS = "[...document.querySelectorAll('.modebar-btn')].map(button => button.dataset.title)"


@dataclass
class Visit:
    """What one page did.

    charts: visible marks of each. buttons: titles of those of the charts. console: all it said. requests: all it asked
    for but itself.
    """

    charts: dict[str, int] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Chromium:
    """One headless browser, spoken to over the DevTools protocol on a pair of pipes."""

    def __init__(self, profile):
        (its_input, self._to), (self._from, its_output) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (its_input, its_output)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, ends), BROWSER, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (its_input, its_output, *ends):
            os.close(end)
        self._buffer, self._last, self._session, self.events = b"", 0, None, []

    def open_tab(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        os.close(self._to)
        os.close(self._from)
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)

    def call(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        wanted = self._last
        answer = self._until(lambda reply: reply.get("id") == wanted)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def evaluate(self, expression):
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    @contextlib.contextmanager
    def window(self, width, scheme="light"):
        """A window of this width and colour scheme; empty when it changes, or the page left in it is drawn anew."""
        self.call("Page.navigate", url="about:blank")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        try:
            yield
        finally:
            self.call("Page.navigate", url="about:blank")
            self.call("Emulation.clearDeviceMetricsOverride")
            self.call("Emulation.setEmulatedMedia", features=[])

    def visit(self, path):
        self.events = []
        url = path.resolve().as_uri()
        self.call("Page.navigate", url=url)
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")
        self.evaluate(SETTLED)
        seen = Visit(charts=self.evaluate(CHARTS), buttons=self.evaluate(BUTTONS))
        for event in self.events:
            _note(seen, event["method"], event["params"], url)
        return seen

    def _until(self, wanted):
        """The first message that is wanted; events that pass by are kept."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            while b"\0" in self._buffer:
                raw, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(raw)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"chromium said nothing for {PATIENCE_SECONDS} s"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, f"chromium left with code {self._process.poll()}"
            self._buffer += chunk


def _note(seen, method, params, url):
    if method == "Runtime.consoleAPICalled":
        seen.console.append(f"{params['type']}: {[arg.get('value') for arg in params['args']]}")
    elif method == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        seen.console.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
    elif method == "Log.entryAdded":
        seen.console.append(f"{params['entry']['level']}: {params['entry']['text']}")
    elif method == "Network.requestWillBeSent" and params["request"]["url"] not in (url, "data:,"):
        seen.requests.append(params["request"]["url"])


def problems(visit, wanted):
    """All that is wrong with a page that should hold these charts, drawn and quiet."""
    found = [f"{name} is missing" for name in wanted - visit.charts.keys()]
    found += [f"{name} is not expected" for name in visit.charts.keys() - wanted]
    found += [f"{name} drew nothing" for name, n_marks in visit.charts.items() if n_marks == 0]
    found += [f"{title!r} sends a chart away" for title in visit.buttons if "hare" in title or "loud" in title]
    found += [f"console: {line}" for line in visit.console]
    return found + [f"request: {url}" for url in visit.requests]


def charts_of(report):
    """The charts that are to be seen: of a tear sheet those of its first strategy, which is shown at first."""
    own = {name for name, (part, _) in FIGURES.items() if has(report, part)}
    own |= {name for name in tear_sheet_charts.figures(report) if name.startswith(("tear_0_", "tear_price"))}
    return {f"chart-{name}" for name in own}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    try:
        browser.open_tab()
        yield browser
    finally:
        browser.close()


def short_report():
    """A report of few charts, each of them drawn as in a long one."""
    return {**backtest_report(), "drift": sample_report()["drift"], "tear_sheet": None}


@pytest.fixture(scope="module")
def short_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "short.html"
    write_report(short_report(), path)
    return path


@pytest.fixture(scope="module")
def good_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "good.html"
    path.write_text(page_of("run"), encoding="utf-8")
    return path


# the sample report as it is: see the test of its tear sheet
@pytest.mark.parametrize(
    ("make", "options"),
    [*((sample_report, options) for options in ({"synthetic": False}, {"idle": True})),
     *((backtest_report, options) for options in ({}, {"synthetic": False}, {"idle": True}))],
)  # fmt: skip
def test_every_chart_draws_and_the_page_is_quiet(chromium, tmp_path, make, options):
    report = make(**options)
    write_report(report, tmp_path / "report.html")
    assert problems(chromium.visit(tmp_path / "report.html"), charts_of(report)) == []


def test_the_page_of_a_real_run_draws_and_is_quiet(chromium, run_folder):
    report = json.loads((run_folder / "report.json").read_text(encoding="utf-8"))
    # the run asks for no paths, its model has no embedding to show, and its few bars may hold no trade to compare
    absent = ("path_fan", "path_sharpes", "embedding", "embedding_training")
    asked = {f"chart-{name}" for name in FIGURES if name not in absent}
    own = {name for name in charts_of(report) if not name.startswith("chart-tear_")}
    assert asked - {"chart-placebos", "chart-hindsight", "chart-live", "chart-sharpe"} <= own <= asked
    assert ("chart-sharpe" in own) == ("No chart" not in (run_folder / "report.html").read_text(encoding="utf-8"))
    assert problems(chromium.visit(run_folder / "report.html"), charts_of(report)) == []


def _without_policy(page):
    start = page.index('<meta http-equiv="Content-Security-Policy"')
    return page[:start] + page[page.index(">", start) + 1 :]


PLANTED = {
    "a chart's content is broken": (
        lambda page: page.replace('data-chart="chart-drift">{"data"', 'data-chart="chart-drift">{dtaa'),
        ("chart-drift drew nothing", "console: exception: SyntaxError"),
    ),
    "a chart has no data": (
        lambda page: page.replace("</main>", '<div class="plotly-graph-div" id="chart-skill2"></div></main>'),
        ("chart-skill2 is not expected", "chart-skill2 drew nothing"),
    ),
    "a chart's place is gone": (
        lambda page: page.replace(' id="chart-equity"', ' id="elsewhere"'), ("chart-equity is missing",),
    ),
    "the console warns": (
        lambda page: _without_policy(page).replace("</main>", "</main><script>console.warn('careful')</script>"),
        ("console: warning: ['careful']",),
    ),
    "plotly is not there": (
        lambda page: page.replace("<script>/**\n* plotly.js", "<script type='text/none'>/**\n* plotly.js"),
        ("chart-equity drew nothing", "console: exception: ReferenceError"),
    ),
    "a script that was slipped in, stopped by the page's own policy": (
        lambda page: page.replace("</main>", "</main><script>console.warn('careful')</script>"),
        ("console: error: Executing inline script violates",),
    ),
    "a button that sends a chart away": (
        lambda page: page.replace("</main>", '<a class="modebar-btn" data-title="Share on a cloud"></a></main>'),
        ("'Share on a cloud' sends a chart away",),
    ),
    "an image from elsewhere": (
        lambda page: _without_policy(page).replace("</main>", '<img src="https://example.invalid/x.png"></main>'),
        ("request: https://example.invalid/x.png",),
    ),
    "an image from elsewhere, stopped by the page's own policy": (
        lambda page: page.replace("</main>", '<img src="https://example.invalid/x.png"></main>'),
        ("console: error: Loading the image 'https://example.invalid/x.png' violates",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_seen(chromium, short_page, tmp_path, fault):
    spoil, expected = PLANTED[fault]
    page = short_page.read_text(encoding="utf-8")
    assert spoil(page) != page
    (tmp_path / "bad.html").write_text(spoil(page), encoding="utf-8")
    found = problems(chromium.visit(tmp_path / "bad.html"), charts_of(short_report()))
    for start in expected:
        assert any(problem.startswith(start) for problem in found), (start, found)


NAME = "a_rather_long_<script>window.ran=1</script> <img src=x onerror='window.ran=1'></script>"


@pytest.fixture(scope="module")
def named(chromium, tmp_path_factory):
    """A visit to a page, 800 pixels wide, on which every name is long and hostile; and what the page then holds."""
    report = sample_report(symbol=NAME)
    path = tmp_path_factory.mktemp("page") / "named.html"
    write_report(report, path)
    with chromium.window(800):
        visit = chromium.visit(path)
        return {
            "problems": problems(visit, charts_of(report)),
            "ran": chromium.evaluate("window.ran !== undefined"),
            "table": chromium.evaluate("document.querySelector('#strategy-table').textContent"),
            "legend": chromium.evaluate("document.querySelector('#chart-equity .legend').textContent"),
            "width": chromium.evaluate("document.documentElement.scrollWidth"),
            "targets": chromium.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"),
            "reached": chromium.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash)"
                                         ".filter(hash => document.querySelector(hash))"),
        }  # fmt: skip


def test_a_hostile_name_is_shown_and_never_run(named):
    assert named["problems"] == []
    assert not named["ran"]
    assert NAME in named["table"]
    assert NAME in named["legend"]


def test_a_tear_sheet_shows_the_strategy_and_the_trades_that_are_chosen(chromium, good_page):
    seen = chromium.visit(good_page)
    assert problems(seen, charts_of(sample_report())) == []
    assert any("Download" in title for title in seen.buttons)
    choose = "((id, value) => {{ const s = document.{0}; s.value = value; s.dispatchEvent(new Event('change')); }})"
    shown = "[...document.querySelectorAll('[data-sheet]')].map(part => part.hidden)"
    assert chromium.evaluate(shown) == [False, True]
    chromium.evaluate(choose.format("querySelector('select[data-shows]')") + "(0, '1')")
    assert chromium.evaluate(shown) == [True, False]
    assert chromium.evaluate("document.querySelectorAll('#chart-tear_1_rolling .trace').length") > 0
    trades = sample_report()["tear_sheet"]["trades"]
    count = "document.getElementById('trade-count').textContent"
    assert chromium.evaluate(count) == f"25 of {trades['n']:,} chosen trades, of {trades['n']:,} on this page."
    chromium.evaluate(choose.format("getElementById('trade-side')") + "(0, '-1')")
    chromium.evaluate(choose.format("getElementById('trade-strategy')") + "(0, '1')")
    n = sum(side < 0 and name == 1 for side, name in zip(trades["side"], trades["strategy"], strict=True))
    assert chromium.evaluate(count) == f"{min(25, n)} of {n} chosen trades, of {trades['n']:,} on this page."
    drawn = "document.getElementById('chart-tear_price').data.map(trace => trace.x.length)"
    close, long, short, *exits = chromium.evaluate(drawn)
    assert (close > 0, long, short, sum(exits)) == (True, 0, n, n)
    assert chromium.evaluate("document.querySelector('#trade-list tbody tr td.left + td.left').textContent") == "short"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_every_kind_of_page_draws_in_any_width_and_theme(chromium, tmp_path, kind, width, scheme):
    (tmp_path / "page.html").write_text(page_of(kind), encoding="utf-8")
    with chromium.window(width, scheme):
        seen = chromium.visit(tmp_path / "page.html")
        expected = set(re.findall(r'data-chart="(chart-(?!tear_[1-9])[\w-]+)"', page_of(kind)))
        assert problems(seen, expected) == []
        assert chromium.evaluate("document.documentElement.scrollWidth") <= width
        # on a small screen no panel of a chart lies beside or over another
        overlaps = chromium.evaluate(OVERLAPS) if width < 640 else []
        assert overlaps == []
        assert chromium.evaluate(COLLISIONS) == []


def test_contents_lead_to_sections_and_a_narrow_window_needs_no_sideways_scroll(named):
    assert named["width"] <= 800
    assert len(named["targets"]) > 10
    assert named["reached"] == named["targets"]
