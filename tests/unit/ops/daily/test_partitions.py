import json
from datetime import date

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.core.runs import digest_json
from tradsys.ops.daily import partitions
from tradsys.ops.daily.partitions import MANIFEST, STOPPED, Lineage, Partitions, StageOutput

DAY = date(2022, 12, 30)
FRAME = pl.DataFrame({"symbol": ["A", "B"], "x": [1.0, 2.0]})
LINEAGE = Lineage({"prices": "abc"}, {"labels": {"horizon_bars": 5}, "events": None})


@pytest.fixture
def store(tmp_path):
    return Partitions(tmp_path)


@pytest.fixture
def done(store):
    store.write("features", DAY, StageOutput({"features": FRAME}, {"dropped": {"rows": 2}}), LINEAGE, 0.5)
    return store


def test_a_partition_lies_under_its_date_and_comes_back(done, tmp_path):
    folder = tmp_path / "features" / "date=2022-12-30"
    assert sorted(p.name for p in folder.iterdir()) == ["dropped.json", "features.parquet", "manifest.json"]
    assert done.frame("features", DAY).equals(FRAME)
    assert done.document("features", DAY, "dropped") == {"rows": 2}
    assert done.dates("features") == [DAY]
    every = pl.scan_parquet(tmp_path / "features" / "*" / "*.parquet", hive_partitioning=True).collect()
    assert every["date"].to_list() == [DAY, DAY]  # the form that polars, Spark and DuckDB read
    manifest = done.manifest("features", DAY)
    assert (manifest["rows"], manifest["inputs"], manifest["seconds"]) == ({"features": 2}, {"prices": "abc"}, 0.5)


def test_a_stage_is_done_only_for_what_it_was_made_from(done):
    assert done.why_not("features", DAY, LINEAGE) is None
    assert done.why_not("features", date(2022, 12, 29), LINEAGE) == "it was never done"
    assert done.why_not("features", DAY, Lineage({"prices": "abd"}, LINEAGE.config)) == "prices changed"
    reported = done.why_not("features", DAY, Lineage(LINEAGE.inputs, {"labels": {"horizon_bars": 10}, "events": None}))
    assert reported == "config: labels.horizon_bars 5 -> 10"
    both = done.why_not("features", DAY, Lineage({"prices": "abc", "models": "m"}, {"labels": {}, "events": None}))
    assert both == "models changed; config: labels absent -> {}; config: labels.horizon_bars 5 -> absent"


def test_many_config_changes_are_counted(done):
    reported = done.why_not(
        "features", DAY, Lineage(LINEAGE.inputs, {**LINEAGE.config, "a": [1, 2], "b": {"c": 1, "d": 2}})
    )
    assert reported.count("config: ") == 3
    assert reported.endswith("and 1 more config keys")


@pytest.mark.parametrize("name", ["features.parquet", "dropped.json"])
def test_an_altered_file_undoes_its_stage(done, name):
    path = done.folder("features", DAY) / name
    path.write_bytes(path.read_bytes() + b" ")
    assert done.why_not("features", DAY, LINEAGE) == f"{name} missing or altered"
    path.unlink()
    assert done.why_not("features", DAY, LINEAGE) == f"{name} missing or altered"


def test_an_altered_manifest_undoes_its_stage(done):
    path = done.folder("features", DAY) / MANIFEST
    reported = json.loads(path.read_text())
    path.write_text(json.dumps({**reported, "inputs": {"prices": "forged"}}))
    assert "manifest" in done.why_not("features", DAY, Lineage({"prices": "forged"}, LINEAGE.config))
    assert done.dates("features") == []
    path.write_text("{")
    assert "manifest" in done.why_not("features", DAY, LINEAGE)


def test_a_stopped_partition_is_kept_and_never_counts_as_done(store):
    store.write("gates", DAY, StageOutput({"gates": FRAME}, facts={STOPPED: ["AUC"]}), LINEAGE, 0.0)
    assert store.why_not("gates", DAY, LINEAGE) == "it was stopped"
    assert store.dates("gates") == []
    assert store.frame("gates", DAY).equals(FRAME)


def test_the_digest_is_that_of_the_content_and_not_of_the_clock(store):
    first = store.write("features", DAY, StageOutput({"features": FRAME}), LINEAGE, 1.0)
    again = store.write("features", DAY, StageOutput({"features": FRAME}, facts={"note": 1}), LINEAGE, 2.0)
    other = store.write("features", DAY, StageOutput({"features": FRAME.head(1)}), LINEAGE, 1.0)
    assert first["digest"] == again["digest"] != other["digest"]
    assert store.write("prices", DAY, StageOutput({"prices": FRAME}, digest="d"), LINEAGE, 1.0)["digest"] == "d"


def test_a_write_that_fails_leaves_the_old_partition_and_no_draft(done, monkeypatch):
    def torn(path, value):
        raise OSError("disk full")

    monkeypatch.setattr(partitions, "write_json", torn)
    with pytest.raises(OSError, match="disk full"):
        done.write("features", DAY, StageOutput({"features": FRAME.head(1)}), LINEAGE, 0.5)
    assert done.frame("features", DAY).equals(FRAME)
    assert done.why_not("features", DAY, LINEAGE) is None
    assert done.sweep() == []


def test_the_sweep_takes_what_a_crash_left_and_nothing_else(done, tmp_path):
    left = tmp_path / "features" / ".date=2022-12-29.0a1b2c3d.part"
    replaced = tmp_path / "features" / ".date=2022-12-28.0a1b2c3d.old"
    for folder in (left, replaced):
        folder.mkdir()
        (folder / "features.parquet").write_bytes(b"half")
    torn = tmp_path / "report" / "date=2022-12-30" / ".report.html.0a1b2c3d.part"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    kept = tmp_path / ".lock"
    kept.touch()
    assert sorted(done.sweep()) == sorted(str(p.relative_to(tmp_path)) for p in (left, replaced, torn))
    assert kept.exists()
    assert done.why_not("features", DAY, LINEAGE) is None


def test_a_missing_partition_is_one_clear_error(done):
    with pytest.raises(DataError, match=r"partition labels/date=2022-12-30 lacks labels.parquet.*run it again: python"):
        done.frame("labels", DAY)
    (done.folder("features", DAY) / "features.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        done.frame("features", DAY)


@pytest.mark.parametrize("text", ["[" * 90_000, "null", "[]", "\udcff", '{"files": {"../../x": "0"}}'], ids=str.__len__)
def test_a_forged_manifest_or_document_is_no_partition_and_one_line(done, text):
    folder = done.folder("features", DAY)
    (done.root / "features" / "date=../x".replace("/", "")).mkdir()
    (folder / "dropped.json").write_bytes(text.encode(errors="surrogateescape"))
    if text[0] != "n" and text != "[]" and "files" not in text:
        with pytest.raises(DataError, match=r"dropped\.json"):
            done.document("features", DAY, "dropped")
    (folder / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    assert done.dates("features") == []
    assert "manifest" in done.why_not("features", DAY, LINEAGE)


def test_no_manifest_names_a_file_elsewhere(done, tmp_path):
    path = done.folder("features", DAY) / MANIFEST
    body = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
    body["files"] = {"../../../secret": "0" * 64}
    path.write_text(json.dumps({**body, "sha256": digest_json(body)}))
    with pytest.raises(DataError, match="directly in its folder"):
        done.why_not("features", DAY, LINEAGE)
