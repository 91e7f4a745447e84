"""A command that a study refuses leaves nothing behind in its folder."""

import pytest

from tradsys.research.sweeps.search_space import SweepError
from tradsys.research.sweeps.sweep import kept_if_joined


def built(place):
    place.mkdir(parents=True, exist_ok=True)
    (place / "values.npy").write_bytes(b"x")


def refused(place):
    built(place)
    raise SweepError("sweep: study 'o' has data digest a, this command b")


def test_a_refused_command_takes_its_dataset_along(tmp_path):
    mine, theirs = tmp_path / "shared" / "mine", tmp_path / "shared" / "theirs"
    built(theirs)
    for place in (mine, theirs):
        with pytest.raises(SweepError), kept_if_joined(place):
            refused(place)
    assert not mine.exists()
    assert theirs.exists(), "it was there before"


def test_a_command_that_joins_keeps_its_dataset(tmp_path):
    with kept_if_joined(tmp_path / "mine"):
        built(tmp_path / "mine")
    assert (tmp_path / "mine").exists()
