import copy

import pytest

from tradsys.research.diagnosis.advice import advice


def estimate(value, low=None, high=None, reason=None):
    return {"value": value, "low": low, "high": high, "reason": reason}


def row(name, value, low, high, p_holm):
    return {"name": name, "value": value, "low": low, "high": high, "p_holm": p_holm}


SOUND = {
    "survivors_only": False,
    "confidence": 0.95,
    "coverage": {"findings": [], "names": ["quiet", "noise", "young"], "overall": [1.0, 0.993, None]},
    "balance": {
        "n_events": 900,
        "n_wicks": 0,
        "n_episodes": 200,
        "rate": 0.03,
        "train_rate": 0.03,
        "valid_rate": 0.032,
        "n_times": 400,
        "times_with_half": 120,
        "n": 30_000,
        "by_symbol": [{"symbol": "AAA", "events": 60, "n": 600}, {"symbol": "BBB", "events": 50, "n": 600}],
    },
    "correlation": [row("quiet", -0.2, -0.3, -0.1, 0.001), row("noise", 0.01, -0.05, 0.07, 1.0)],
    "compression": {"lifts": [{"lift": estimate(2.5, 1.8, 3.1), "within_time": estimate(2.2, 1.5, 3.0)}]},
}


def said(change=None, report=SOUND):
    changed = copy.deepcopy(report)
    if change is not None:
        change(changed)
    return {line["text"]: line["level"] for line in advice(changed)}


def level_of(words, lines):
    (found,) = [level for text, level in lines.items() if words in text]
    return found


def test_sound_data_earn_no_warning():
    lines = said()
    assert set(lines.values()) == {"note"}
    assert level_of("the least covered, noise, has 99.3% of its values", lines) == "note"
    assert (
        level_of(
            "2.50 [1.80, 3.10] times as often as all. Compared with",
            lines,
        )
        == "note"
    )
    assert level_of("1 of 2 columns correlate with the label beyond chance (Holm): quiet (-0.20)", lines) == "note"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(survivors_only=True), "survivors only"),
        (lambda r: r["balance"].update(n_episodes=99), "too few to tell a model from luck"),
        (lambda r: r["balance"].update(n_wicks=226), "In 226 of 900 events (25%) a high touched the rise"),
        (lambda r: r["balance"].update(times_with_half=39), "on 9.8% of the dates"),
        (lambda r: r["balance"]["by_symbol"][0].update(events=181), "AAA alone gives 20% of the events"),
        (lambda r: r["balance"].update(valid_rate=0.0199), "the calibrated level will not hold"),
        (lambda r: r["balance"].update(valid_rate=0.0), "the calibrated level will not hold"),
        (lambda r: r["correlation"][0].update(p_holm=0.05), "No column correlates with the label beyond chance"),
        (lambda r: [c.update(p_holm=None) for c in r["correlation"]], "No correlation has an interval"),
        (
            lambda r: r["compression"]["lifts"][0].update(lift=estimate(1.2, 0.9, 1.6)),
            "an interval around 1, so",
        ),
        (lambda r: r["compression"]["lifts"][0].update(lift=estimate(0.5, 0.4, 0.9)), "The premise fails"),
        (lambda r: r["compression"]["lifts"][0].update(lift=estimate(2.0, reason="few blocks")), "few blocks"),
    ],
)
def test_each_fault_is_one_warning(change, words):
    lines = said(change)
    assert level_of(words, lines) == "warn"
    assert sum(level == "warn" for level in lines.values()) == 1


def test_an_edge_at_the_limit_is_no_warning():
    for change in (
        lambda r: r["balance"].update(n_episodes=100),
        lambda r: r["balance"].update(n_wicks=225),
        lambda r: r["balance"].update(n_wicks=None),  # a label that asks for no rise
        lambda r: r["balance"].update(times_with_half=40),
        lambda r: r["balance"].update(valid_rate=0.0201),
        lambda r: r["correlation"][0].update(p_holm=0.0499),
        lambda r: r["balance"]["by_symbol"][0].update(events=300, n=6000),  # a third of few symbols is no wonder
    ):
        assert "warn" not in said(change).values()


def test_failures_come_first():
    finding = {"feature": "buzz", "outcome": "stop", "text": "present from 2023-01-01 on only"}
    changed = copy.deepcopy(SOUND)
    changed["coverage"]["findings"] = [finding]
    changed["survivors_only"] = True
    lines = advice(changed)
    assert [line["level"] for line in lines[:3]] == ["stop", "warn", "note"]
    assert lines[0]["text"] == "buzz: present from 2023-01-01 on only."


def test_without_compression_columns_it_says_so():
    assert level_of("its lift was not measured", said(lambda r: r.update(compression=None))) == "note"


def test_a_judged_model_is_compared_with_luck_and_its_own_promise():
    def judged(lift, coverage):
        at_k = [{"ranking": "model", "k": 3, "lift": lift}, {"ranking": "other", "k": 3, "lift": estimate(9, 8, 10)}]
        return lambda r: r.update(
            judged={"model": "model", "at_k": at_k, "conformal": {"wanted": 0.9, "coverage": coverage}}
        )

    lines = said(judged(estimate(2.7, 0.8, 4.5), estimate(0.80, 0.75, 0.85)))
    assert level_of("that may be luck", lines) == "warn"
    assert level_of("promised 90% and covered 0.80 [0.75, 0.85]", lines) == "warn"
    lines = said(judged(estimate(2.7, 1.1, 4.5), estimate(0.88, 0.85, 0.91)))
    assert level_of("times as often as at random", lines) == "note"
    assert "warn" not in lines.values()
