import pytest

from tests.unit.reports import sample_embedding
from tests.unit.reports.quick_page import quick_render as render
from tests.unit.reports.run.test_page import Reader, words
from tests.unit.reports.sample_report import sample_report
from tradsys.reports.run.embedding_charts import embedding_map, training_curves


def panels(figure):
    return [[t for t in figure.data if t.xaxis == axis] for axis in ("x", "x2", "x3")]


def test_every_window_stands_once_in_each_panel_in_its_own_group():
    section = sample_embedding.embedding()
    points = section["points"]
    everything = sorted(zip(points["x"], points["y"], strict=True))
    by_label, by_regime, by_time = panels(embedding_map({"embedding": section}))
    for panel in (by_label, by_regime, by_time):
        assert sorted((x, y) for t in panel for x, y in zip(t.x, t.y, strict=True)) == everything
    for k, trace in enumerate(by_label):
        assert trace.name == f"label {k}"
        assert sorted(trace.x) == sorted(x for x, y in zip(points["x"], points["label"], strict=True) if y == k)
    assert [t.name for t in by_regime] == ["calm", "trend", "panic"]
    assert [len(t.x) for t in by_time] == [30] * 4
    assert [t.name for t in by_time] == ["from 2024-01-01", "from 2024-01-02", "from 2024-01-03", "from 2024-01-04"]


def test_panels_have_legends_of_their_own_and_share_their_axes():
    figure = embedding_map({"embedding": sample_embedding.embedding("<b>x")})
    assert [{t.legend for t in panel} for panel in panels(figure)] == [{"legend"}, {"legend2"}, {"legend3"}]
    assert (figure.layout.xaxis2.matches, figure.layout.yaxis2.matches) == ("x", "y")
    assert "&lt;b&gt;x" in {t.name for t in figure.data}


def test_curves_show_every_epoch_with_what_has_to_be_beaten_and_the_kept_one():
    figure = training_curves({"embedding": sample_embedding.embedding()})
    curves = [t for t in figure.data if t.mode == "lines+markers"]
    assert [tuple(t.x) for t in curves] == [(1, 2, 3, 4)] * 4
    assert curves[2].y == pytest.approx([0.5, 0.51, 0.52, 0.53])
    levels = [t.y[0] for t in figure.data if t.mode == "lines"]
    assert levels == [0.52, 0.69]
    assert {shape.x0 for shape in figure.layout.shapes} == {4}


def test_the_section_stands_in_the_page_with_chance_beside_purity():
    section = sample_embedding.embedding()
    section["clusters"][0] |= {"purity": 0.9, "by_chance": {"mean": 0.52, "low": 0.5, "high": 0.55}, "p_value": 0.002}
    section["clusters"][1] |= {"purity": 0.55, "by_chance": {"mean": 0.54, "low": 0.5, "high": 0.58}, "p_value": 0.3}
    page = render(sample_report() | {"embedding": section})
    assert {"embedding", "chart-embedding", "chart-embedding_training", "cluster-purity"} <= set(Reader(page).ids)
    said = words(page)
    assert "52.0 % [50.0 %, 55.0 %]" in said
    assert "p = 0.002" in said
    assert said.count("no purer than chance") == 1
    assert said.count("purer than chance") == 2


def test_without_history_or_section_nothing_is_left_behind():
    page = render(sample_report() | {"embedding": sample_embedding.embedding(history=False)})
    assert "chart-embedding_training" not in Reader(page).ids
    assert "While it trained" not in page
    bare = sample_report()
    del bare["embedding"]
    assert "embedding" not in Reader(render(bare)).ids
