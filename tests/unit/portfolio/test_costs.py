import math

import pytest
import yaml

from tradsys.core.errors import TradsysError
from tradsys.portfolio.costs import Costs


def test_round_trip_is_what_buying_and_selling_at_one_price_costs():
    costs = Costs(fee_bps=20, slippage_bps=7)
    paid, got = 100 * 1.0007 * 1.002, 100 * 0.9993 * 0.998
    assert costs.round_trip == pytest.approx((paid - got) / 100)
    assert costs.log_round_trip == pytest.approx(math.log(paid / got))
    assert Costs(0, 0).round_trip == Costs(0, 0).log_round_trip == 0


def test_fills_are_worse_on_either_side():
    assert Costs(0, 50).fill_price(200, 1) == pytest.approx(201)
    assert Costs(0, 50).fill_price(200, -1) == pytest.approx(199)


@pytest.mark.parametrize(("fee", "slippage"), [(-1, 0), (0, -1), (1001, 0), (float("nan"), 0), (0, float("inf"))])
def test_refuses_costs_out_of_range(fee, slippage):
    with pytest.raises(TradsysError, match="0 <="):
        Costs(fee, slippage)


def test_config_states_the_defaults(request):
    config = yaml.safe_load((request.config.rootpath / "conf" / "costs" / "default.yaml").read_text())
    assert config.pop("_target_") == "tradsys.portfolio.costs.Costs"
    assert Costs(**config) == Costs()


def test_a_report_states_what_fills_and_what_is_left_out():
    bare = Costs().as_dict(["open", "close"])["fills"]
    assert "price only" in bare
    assert "volume was not recorded" in bare
    full = Costs(max_participation=0.1, capital=1e5, borrow_bps_per_year=60).as_dict(["volume", "dividend_due"])[
        "fills"
    ]
    assert "at most 10% of a bar's volume at a capital of 100000" in full
    assert "60 bps a year" in full
    assert "with dividend" in full
