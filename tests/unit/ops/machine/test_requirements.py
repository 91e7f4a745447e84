import pytest

from tests.conftest import walk_bars
from tradsys.config.compose import as_dict, compose
from tradsys.core.errors import DataError, TradsysError
from tradsys.market.store import BarStore, StoredBars
from tradsys.ops.machine.requirements import ResourceEstimate, estimate_of, rows_of

# whole training runs on 48 features: rows, then the peaks VmHWM and VmPeak in bytes
MEASURED = {9_000: (1.149e9, 4.27e9), 36_000: (1.168e9, 4.43e9), 180_000: (1.293e9, 4.59e9)}


@pytest.mark.parametrize(("rows", "peaks"), MEASURED.items())
def test_comfort_covers_what_runs_really_took_and_little_more(rows, peaks):
    estimate = ResourceEstimate(rows, 48)
    assert peaks[0] <= estimate.comfort * 1.01
    assert estimate.comfort <= 1.1 * peaks[0]
    assert peaks[1] <= estimate.address_space * 1.02
    assert estimate.address_space <= 1.1 * peaks[1]


# the same without a net, which load no torch: model=logistic at 14,000 rows, model=lightgbm beyond
LEAN = {14_000: (0.651e9, 3.69e9), 120_000: (0.852e9, 4.17e9), 280_000: (1.214e9, 4.44e9)}


@pytest.mark.parametrize(("rows", "peaks"), LEAN.items())
def test_a_run_without_a_net_is_estimated_by_what_it_takes(rows, peaks):
    estimate = ResourceEstimate(rows, 48, has_net=False)
    assert peaks[0] <= estimate.comfort * 1.01
    assert estimate.comfort <= 1.1 * peaks[0]
    assert peaks[1] <= estimate.address_space * 1.02


def test_a_net_makes_no_run_smaller_however_many_bars():
    for rows in (0, 10_000, 10**6, 10**8):
        lean, whole = (ResourceEstimate(rows, 48, has_net) for has_net in (False, True))
        assert lean.memory <= whole.memory
        assert lean.rows_within(lean.memory) == pytest.approx(rows, abs=1)


@pytest.mark.parametrize(
    ("command", "overrides", "has_net"),
    [
        ("train", ["model=logistic"], False),
        ("train", ["model=lightgbm"], False),
        ("train", ["+experiment=foundry"], False),
        ("train", ["model=transformer"], True),
        ("train", ["model=average"], True),
        ("train", ["+experiment=supcon"], True),
        ("tune", ["model=lightgbm"], True),  # a sweep may choose another model
    ],
)
def test_nets_are_found_in_the_configuration(command, overrides, has_net):
    config = as_dict(compose(command, [*overrides, "data=synthetic"]))
    assert estimate_of(config).has_net == has_net
    foreign = config | {"model": {"_target_": "their.package.Model"}}
    assert estimate_of(foreign).has_net


def test_the_synthetic_market_is_counted_from_the_config():
    features = {"features": [{}] * 40, "extra": [{}]}
    assert estimate_of(
        {"data": {"source": {"n_bars": 6000, "symbols": ["A", "B"]}}, "features": features}
    ) == ResourceEstimate(12_000, 41)


@pytest.mark.parametrize("features", [{"features": 3}, {"features": [], "extra": -1}, {"features": {"a": 1}}])
def test_features_that_are_no_list_are_one_line(features):
    with pytest.raises(TradsysError, match=r"^config: features\.(features|extra)=.*it takes a list"):
        estimate_of({"data": {"source": {"n_bars": 6000}}, "features": features})


def test_more_bars_more_features_more_need():
    small, tall, wide = ResourceEstimate(10_000, 48), ResourceEstimate(20_000, 48), ResourceEstimate(10_000, 96)
    assert tall.table == wide.table == 2 * small.table == 2 * 10_000 * 48 * 4
    assert small.memory < tall.memory == wide.memory < wide.comfort


def test_rows_within_is_the_inverse_of_memory():
    estimate = ResourceEstimate(50_000, 48)
    assert estimate.rows_within(estimate.memory) == pytest.approx(50_000, abs=1)
    assert estimate.rows_within(512e6) == 0


@pytest.fixture
def stored(tmp_path):
    BarStore(tmp_path).write("walk", walk_bars(2000, ("AAA", "BBB")), {})
    return {"root": str(tmp_path), "name": "walk", "symbols": ["AAA"], "start": None, "end": None}


@pytest.mark.parametrize(
    "span",
    [
        {},
        {"symbols": None},
        {"start": "2020-02-01"},
        {"end": "2020-02-01"},
        {"start": "2020-01-20", "end": "2020-03-01", "symbols": ["AAA", "BBB"]},
        {"start": "2019-01-01", "end": "2030-01-01"},
    ],
)
def test_stored_bars_are_counted_as_reading_finds_them(stored, span):
    source = stored | span
    assert rows_of(source) == pytest.approx(StoredBars(**source).bars().height, abs=2)


def test_a_span_beside_the_data_holds_none(stored):
    assert rows_of(stored | {"start": "2030-01-01"}) == 0


def test_missing_and_damaged_data_are_refused_by_name(stored, tmp_path):
    with pytest.raises(DataError, match=r"'gone'.*tradsys\.fetch.*name=gone"):
        rows_of(stored | {"name": "gone"})
    (tmp_path / "walk" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        rows_of(stored)


def test_a_source_that_does_not_tell_gives_none():
    assert rows_of({"path": "prices.csv", "layout": "plain"}) is None
    assert ResourceEstimate(None, 48).table == 0
