"""A zone is taken off in two places, and one module says which day a close belongs to."""

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tradsys"
PLACES = {SOURCE / "core" / "clock.py", SOURCE / "market" / "bars.py"}
STRIPPED = re.compile(
    r"tzinfo\s*=\s*None|replace_time_zone\(\s*None|tz_localize\(\s*None|tz_convert\(\s*None|cast_time_unit|utcfromtimestamp"
)


@pytest.mark.parametrize(
    "planted",
    [
        "at.replace(tzinfo=None)",
        "pl.col('time').dt.replace_time_zone(None)",
        "index.tz_localize(None)",
        "close.dt.tz_convert(None)",
        "time.dt.cast_time_unit('us')",
    ],
)
def test_the_search_finds_a_planted_idiom(planted):
    assert STRIPPED.search(planted)


@pytest.mark.parametrize("path", sorted(set(SOURCE.rglob("*.py")) - PLACES), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_zone_is_taken_off_outside_the_clock(path):
    assert not STRIPPED.findall(path.read_text())


DAY_OF_A_CLOSE = re.compile(r"-\s*(?:timedelta|pl\.duration|np\.timedelta64)\((?:microseconds=1\b|1, \"us\")")


@pytest.mark.parametrize("planted", ["(t - timedelta(microseconds=1)).date()", 'days - np.timedelta64(1, "us")'])
def test_the_search_finds_a_planted_day(planted):
    assert DAY_OF_A_CLOSE.search(planted)


def test_the_day_of_a_close_is_decided_in_one_module():
    """A close at midnight belongs to the day before: market.calendars has it for a moment, a column and an array."""
    found = {str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py") if DAY_OF_A_CLOSE.search(p.read_text())}
    assert found == set()
