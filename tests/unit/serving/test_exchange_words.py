"""What a bot says of an exchange that does not answer."""

from tradsys.serving.exchange.client import cause_of


def raised(outer, inner=None):
    try:
        try:
            if inner is not None:
                raise inner
        except OSError as error:
            raise outer from error
        raise outer
    except RuntimeError as error:
        return error


def test_a_bare_address_is_followed_by_the_networks_words():
    bare = RuntimeError("binance GET https://api.binance.com/api/v3/time")
    assert cause_of(raised(bare, OSError("Name or service not known"))) == "binance GET: Name or service not known"
    assert cause_of(raised(RuntimeError("binance GET https://api.binance.com/x"))) == "binance GET"


def test_an_answer_of_the_exchange_speaks_for_itself():
    answer = RuntimeError("binance too many requests, banned until later")
    assert cause_of(raised(answer, OSError("429"))) == "binance too many requests, banned until later"


def test_an_answer_cannot_steer_the_terminal():
    assert "\x1b" not in cause_of(raised(RuntimeError("binance \x1b[2J\x1b[31mall is well\r")))
