import pytest

from tradsys.core.plurals import counted


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (1, "experiment", "1 experiment"),
        (0, "trial", "0 trials"),
        (2, "return series", "2 return series"),
        (12345, "entry", "12,345 entries"),
        (2, "day", "2 days"),
        (3, "branch", "3 branches"),
        (1, "loss", "1 loss"),
        (2, "loss", "2 losses"),
    ],
)
def test_a_noun_follows_its_count(n, noun, text):
    assert counted(n, noun) == text
