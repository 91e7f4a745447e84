"""A zone is taken off in two places: core.clock for a moment, market.bars for a column of times."""

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
