import json
from pathlib import Path

import polars as pl
import pytest

from tradsys.core.errors import DataError
from tradsys.core.runs import digest_json
from tradsys.market import store as store_module
from tradsys.market import symbol_files
from tradsys.market.bars import content_digest
from tradsys.market.store import BarStore, StoredBars

META = {"source": "walk.csv", "sha256": "ab" * 32, "layout": "plain", "repairs": []}


@pytest.fixture
def store(tmp_path):
    return BarStore(tmp_path / "data")


def test_what_is_written_is_read_back(store, make_walk_bars):
    bars = make_walk_bars(300, ("AAA", "BBB", "^AXJO", "BRK.B"))
    manifest = store.write("walk", bars, META)
    assert store.read("walk").equals(bars.sort("symbol", "time"))
    assert store.names() == ["walk"]
    assert manifest["digest"] == content_digest(bars)
    assert (manifest["n_rows"], manifest["bar_minutes"]) == (1200, 60)
    assert manifest["symbols"]["BRK.B"]["n_rows"] == 300
    assert manifest["imports"][0]["source"] == "walk.csv"
    assert manifest["imports"][0]["symbols"] == ["AAA", "BBB", "BRK.B", "^AXJO"]
    reread = store.manifest("walk")
    assert reread["digest"] == manifest["digest"]


def test_joined_columns_are_not_stored_and_not_in_the_manifest_s_digest(store, make_walk_bars):
    bars = make_walk_bars(30)
    manifest = store.write("walk", bars.with_columns(pe=pl.lit(12.0), segment=pl.lit(0, pl.UInt32)), META)
    assert store.read("walk").equals(bars)
    assert manifest["digest"] == content_digest(bars)


def test_a_written_file_replaces_its_symbols_and_the_old_content_stays_until_cleaned(store, make_walk_bars):
    first, second = make_walk_bars(50, ("AAA", "BBB")), make_walk_bars(80, ("BBB", "CCC"), seed=3)
    store.write("walk", first, META)
    store.write("walk", second, {**META, "source": "second.csv"})
    expected = pl.concat([first.filter(symbol="AAA"), second])
    assert store.read("walk").equals(expected)
    manifest = store.manifest("walk")
    assert manifest["digest"] == content_digest(expected)
    assert [(i["source"], i["symbols"]) for i in manifest["imports"]] == [
        ("walk.csv", ["AAA"]),
        ("second.csv", ["BBB", "CCC"]),
    ]
    assert len(list((store.root / "walk").glob("*.parquet"))) == 4, "the replaced BBB is kept"
    assert store.clean("walk") == 1
    assert len(list((store.root / "walk").glob("*.parquet"))) == 3
    assert store.read("walk").equals(expected)
    with pytest.raises(DataError, match="no earlier content is kept"):
        store.undo("walk")


def test_newer_bars_are_added_and_equal_ones_counted(store, make_walk_bars):
    bars = make_walk_bars(100, ("AAA", "BBB"))
    old, new = bars.filter(pl.col("time") <= bars["time"][69]), bars.filter(pl.col("time") > bars["time"][59])
    store.append("walk", old, META)
    summary = store.append("walk", new.filter(symbol="BBB"), {**META, "source": "update.csv"})
    assert [(u.symbol, u.n_before, u.n_added, u.n_same, u.n_dropped) for u in summary.updates] == [
        ("BBB", 70, 30, 10, 0)
    ]
    assert summary.conflicts.is_empty()
    assert store.read("walk", ["BBB"]).equals(bars.filter(symbol="BBB"))
    assert store.read("walk", ["AAA"]).height == 70, "the other symbol is not touched"
    assert [i["source"] for i in summary.manifest["imports"]] == ["walk.csv", "update.csv"]
    assert summary.manifest["symbols"]["BBB"]["bar_minutes"] == 60


def test_a_differing_stored_bar_stops_the_write_and_both_ways_on_work(store, make_walk_bars):
    bars = make_walk_bars(50)
    store.append("walk", bars, META)
    revised = bars.with_columns(volume=pl.when(pl.int_range(pl.len()) == 7).then(1.5).otherwise("volume"))
    with pytest.raises(DataError, match=r"1 stored bars differ .*AAA 2020-01-01 08:00 volume .* -> 1.5; nothing was"):
        store.append("walk", revised, META)
    assert store.read("walk").equals(bars)
    kept = store.append("walk", revised, META, conflicts="keep")
    assert store.read("walk").equals(bars)
    assert kept.conflicts.select("symbol", "column", "new").rows() == [("AAA", "volume", 1.5)]
    taken = store.append("walk", revised, META, conflicts="take")
    assert store.read("walk").equals(revised)
    assert taken.updates[0].n_conflicts == 1


def test_replace_counts_what_it_drops_and_undo_brings_it_back(store, make_walk_bars):
    bars = make_walk_bars(100)
    store.append("walk", bars, META)
    summary = store.append("walk", bars.tail(20), META, mode="replace")
    assert (summary.n_dropped, summary.n_added) == (80, 0)
    assert "80 stored bars dropped, from 2020-01-01 01:00 to 2020-01-04 08:00" in str(summary.updates[0])
    assert store.read("walk").height == 20
    assert store.undo("walk")["n_rows"] == 100
    assert store.read("walk").equals(bars)


def test_a_gap_between_stored_and_new_bars_is_named(store, make_walk_bars):
    bars = make_walk_bars(100)
    store.append("walk", bars.head(40), META)
    summary = store.append("walk", bars.tail(30), META)
    assert "no bars between 2020-01-02 16:00 and 2020-01-03 23:00" in str(summary.updates[0])


def test_a_store_of_the_version_before_opens_and_takes_bars(store, make_walk_bars):
    """Manifests without bar_minutes and vendor by symbol, as written before."""
    bars = make_walk_bars(30)
    store.append("walk", bars.head(20), META)
    path = store.root / "walk" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"], manifest["symbols"]["AAA"]["bar_minutes"]
    path.write_text(json.dumps({**manifest, "sha256": digest_json(manifest)}))
    assert store.read("walk").height == 20
    store.append("walk", bars, META)
    assert store.read("walk").equals(bars)


def test_symbols_in_any_script_and_words_of_yaml_are_stored(store, make_walk_bars):
    names = ("NAN", "TRUE", "1E5", "币安人生USDT", "600519")
    bars = make_walk_bars(12, names).sort("symbol", "time")
    store.append("walk", bars, {**META, "vendor_symbols": {"NAN": ["N/AN"]}})
    assert store.read("walk").equals(bars)
    assert store.manifest("walk")["symbols"]["NAN"]["vendor"] == ["N/AN"]


def test_symbols_and_span_select_bars_that_close_in_the_interval(store, make_walk_bars):
    bars = make_walk_bars(72, ("AAA", "BBB"))  # closes 2020-01-01 01:00 .. 2020-01-04 00:00
    store.write("walk", bars, META)
    day = store.read("walk", ["BBB"], "2020-01-02", "2020-01-03")
    assert day.height == 24
    assert str(day["time"][0]) == "2020-01-02 01:00:00+00:00"
    assert str(day["time"][-1]) == "2020-01-03 00:00:00+00:00"
    assert store.read("walk", end="2020-01-01T05:00:00+02:00").height == 2 * 3
    halves = [store.read("walk", None, None, "2020-01-02"), store.read("walk", None, "2020-01-02")]
    assert sum(h.height for h in halves) == bars.height


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"symbols": ["ZZZ"]}, r"no symbols \['ZZZ'\] among 1: \['AAA'\]"),
        ({"start": "2031-01-01"}, "no bars of .* the dataset spans 2020-01-01T01:00"),
        ({"start": "yesterday"}, "store: start: 'yesterday' is no moment"),
    ],
)
def test_a_question_without_answer_is_an_error(store, make_walk_bars, asked, says):
    store.write("walk", make_walk_bars(10), META)
    with pytest.raises(DataError, match=says):
        store.read("walk", **asked)


def test_a_missing_dataset_says_what_exists_and_how_to_fetch(store, make_walk_bars):
    store.write("walk", make_walk_bars(10), META)
    with pytest.raises(
        DataError, match=r"no dataset 'other'; it holds \['walk'\].*tradsys.fetch source=file .*name=other"
    ):
        store.read("other")


def test_changed_bars_are_refused_also_in_part(store, make_walk_bars):
    bars = make_walk_bars(30, ("AAA", "BBB"))
    entry = store.write("walk", bars, META)["symbols"]["BBB"]
    path = store.root / "walk" / entry["file"]
    changed = pl.read_parquet(path).with_columns(close=pl.col("close") * (1 + 1e-12))
    changed.write_parquet(path)
    with pytest.raises(DataError, match=r"BBB has content .* the manifest states"):
        store.read("walk", ["BBB"], start="2020-01-02")
    with pytest.raises(DataError, match="BBB has content"):
        store.read("walk")
    assert store.read("walk", ["AAA"]).height == 30


def test_a_changed_or_torn_manifest_is_refused(store, make_walk_bars):
    store.write("walk", make_walk_bars(30), META)
    path = store.root / "walk" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "n_rows": 31}))
    with pytest.raises(DataError, match="changed after it was written"):
        store.read("walk")
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match="not JSON"):
        store.read("walk")


@pytest.mark.parametrize("failing", ["write_json", "write_symbols"])
def test_a_write_cut_short_leaves_the_old_content(store, make_walk_bars, monkeypatch, failing):
    old, new = make_walk_bars(30, ("AAA", "BBB")), make_walk_bars(40, ("AAA", "BBB"), seed=9)
    store.write("walk", old, META)

    def killed(*args):
        if failing == "write_symbols":
            (store.root / "walk" / ".AAA.part").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, failing, killed)
        with pytest.raises(KeyboardInterrupt):
            store.write("walk", new, META)
    assert store.read("walk").equals(old)
    store.write("walk", new, META)
    assert store.read("walk").equals(new)
    names = {path.name for path in (store.root / "walk").iterdir()}
    assert len(names - {".lock", "manifest.json", "history"}) == 4, "leftovers are swept, the content before is kept"


def test_bars_of_another_length_do_not_mix(store, make_walk_bars):
    store.write("walk", make_walk_bars(30), META)
    with pytest.raises(DataError, match="holds bars of 60 minutes, these are of 15"):
        store.write("walk", make_walk_bars(30, ("BBB",), minutes=15), META)
    assert store.manifest("walk")["n_rows"] == 30


@pytest.mark.parametrize("symbol", ["../x", "a/b", "..", ".hidden", "a\\b", "", "x" * 41, "A\n", "A..B"])
def test_symbols_that_could_leave_the_folder_are_refused(store, make_walk_bars, symbol):
    with pytest.raises(DataError, match="no symbol that can be stored"):
        store.write("walk", make_walk_bars(5, (symbol,)), META)
    assert not list(Path(store.root.parent).rglob("*.parquet"))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".x", "a b"])
def test_dataset_names_that_could_leave_the_root_are_refused(store, make_walk_bars, name):
    with pytest.raises(DataError, match="a folder's name has at most 100"):
        store.write(name, make_walk_bars(5), META)


def test_bad_bars_are_not_stored(store, make_walk_bars):
    with pytest.raises(DataError, match="negative volume"):
        store.write("walk", make_walk_bars(5).with_columns(volume=pl.lit(-1.0)), META)
    with pytest.raises(DataError, match="no bars to write"):
        store.write("walk", make_walk_bars(5).clear(), META)
    assert store.names() == []


def test_stored_bars_describe_exactly_what_they_give(store, make_walk_bars):
    store.write("walk", make_walk_bars(72, ("AAA", "BBB")), META)
    for source in (
        StoredBars(str(store.root), "walk"),
        StoredBars(str(store.root), "walk", ["BBB"]),  # a list, as configuration gives it
        StoredBars(str(store.root), "walk", ("BBB",), "2020-01-02", "2020-01-03"),
    ):
        reported = source.describe()
        assert reported["digest"] == content_digest(source.bars())
        assert reported["kind"] == "store"
        assert reported["synthetic"] is False
        assert reported["symbols"] == source.bars()["symbol"].unique().sort().to_list()
        json.dumps(reported)
    assert hash(StoredBars("r", "n", ["A"])) == hash(StoredBars("r", "n", ("A",)))


def test_a_reference_is_read_over_the_span_of_the_others(store, make_walk_bars):
    names = make_walk_bars(72, ("AAA", "BBB"))
    store.write("walk", names.filter((pl.col("symbol") == "AAA") & (pl.col("time") > names["time"][23])), META)
    store.write("walk", names.filter(symbol="BBB"), META)
    source = StoredBars(str(store.root), "walk", ["AAA"], reference="BBB")
    bars = source.bars()
    assert bars["symbol"].unique().sort().to_list() == ["AAA", "BBB"]
    assert bars.filter(symbol="BBB")["time"].to_list() == bars.filter(symbol="AAA")["time"].to_list()
    assert source.describe()["digest"] == content_digest(bars)
    assert source.describe()["reference"] == source.untraded == "BBB"


@pytest.mark.parametrize(
    "span", [(None, None), ("2020-01-02", None), (None, "2020-01-02"), ("2020-01-02", "2020-01-03")]
)
def test_a_reference_is_described_by_what_is_read_of_it_and_the_others_are_not_read_for_it(
    span, store, make_walk_bars, monkeypatch
):
    names = make_walk_bars(72, ("AAA", "BBB", "CCC"))
    store.write(
        "walk", names.filter((pl.col("symbol") != "BBB") & pl.col("time").is_in(names["time"][5:70].implode())), META
    )
    store.write("walk", names.filter(symbol="BBB"), META)
    source = StoredBars(str(store.root), "walk", ["AAA", "CCC"], *span, reference="BBB")
    expected, read = content_digest(source.bars()), []
    reader = symbol_files.read_symbol
    monkeypatch.setattr(symbol_files, "read_symbol", lambda *given: read.append(given[1]) or reader(*given))
    assert source.describe()["digest"] == expected
    assert read == (["BBB"] if span == (None, None) else ["AAA", "CCC", "BBB"])


def test_a_reference_that_is_not_stored_is_refused(store, make_walk_bars):
    store.write("walk", make_walk_bars(72, ("AAA", "BBB")), META)
    source = StoredBars(str(store.root), "walk", reference="SPY", trade_reference=False)
    for read in (source.bars, source.describe):
        with pytest.raises(DataError, match=r"no reference 'SPY' among 2: \['AAA', 'BBB'\]; fetch its bars too"):
            read()


def test_a_symbol_that_is_named_to_trade_is_no_mere_reference(store, make_walk_bars):
    names = make_walk_bars(72, ("AAA", "BBB"))
    store.write("walk", names.filter((pl.col("symbol") == "AAA") & (pl.col("time") > names["time"][23])), META)
    store.write("walk", names.filter(symbol="BBB"), META)
    for symbols in (None, ["AAA", "BBB"]):
        source = StoredBars(str(store.root), "walk", symbols, reference="BBB")
        assert source.untraded is None
        assert "reference" not in source.describe()
        assert source.bars().filter(symbol="BBB").height == 72
    assert StoredBars(str(store.root), "walk", reference="BBB", trade_reference=False).untraded == "BBB"
    with pytest.raises(DataError, match="BBB is a reference and not traded, and no other symbol is left"):
        StoredBars(str(store.root), "walk", ["BBB"], reference="BBB", trade_reference=False).bars()


def test_symbols_that_yaml_took_for_numbers_are_named():
    with pytest.raises(DataError, match=r"symbols \[100000.0\] are no texts; put them in quotes"):
        StoredBars("r", "n", ["AAA", 1e5])


def test_the_length_in_the_manifest_is_compared_with_the_bars(store, make_walk_bars):
    store.write("walk", make_walk_bars(40, ("AAA",)), {**META, "bar_minutes": 240})
    with pytest.raises(DataError, match="store walk: the bars are of 60 minutes, not of 240; one dataset has"):
        StoredBars(str(store.root), "walk").bars()


@pytest.mark.parametrize(
    ("key", "value"), [("events", "maybe"), ("reference", 3), ("trade_reference", "x"), ("start", "soon"), ("end", 7)]
)
def test_a_wrong_value_of_the_source_is_refused_by_its_key(key, value):
    with pytest.raises(DataError, match=rf"data\.source\.{key}"):
        StoredBars("r", "n", **{key: value})


def test_rows_that_lie_in_each_other_s_files_are_refused(store, make_walk_bars):
    manifest = store.write("walk", make_walk_bars(30, ("AAA", "BBB", "CCC")), META)
    one, other = (store.root / "walk" / manifest["symbols"][name]["file"] for name in ("BBB", "CCC"))
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    with pytest.raises(DataError, match="BBB has content None"):
        store.read("walk")


def test_reading_all_files_at_once_gives_what_reading_each_gives(store, make_walk_bars):
    names = ("AAA", "BRK.B", "^AXJO")
    store.write("walk", make_walk_bars(40, names), META)
    folder, entries = store.root / "walk", store.manifest("walk")["symbols"]
    each = [symbol_files.read_symbol(folder, name, entries[name]) for name in reversed(names)]
    together = symbol_files.read_symbols(folder, {name: entries[name] for name in reversed(names)})
    assert together.equals(pl.concat(each))
