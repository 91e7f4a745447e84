"""Writes quantstats_oracle.json, where quantstats 0.0.86 is installed.

python tests/unit/evidence/track_record/quantstats_oracle.py
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd


def main():
    import quantstats

    stats, days = quantstats.stats, pd.date_range("2021-02-10", periods=400, freq="D")
    drawn = np.round(np.random.default_rng(11).normal(0.0008, 0.012, len(days)), 6)
    returns = pd.Series(drawn, index=days)
    falls = stats.drawdown_details(stats.to_drawdown_series(returns)).sort_values("max drawdown").head(6)
    window = {"rolling_period": 63, "periods_per_year": 365}

    def by_day(series):
        return {str(day.date()): round(float(value), 9) for day, value in series.dropna().items()}

    found = {
        "made_by": f"quantstats {quantstats.__version__}: tests/unit/evidence/track_record/quantstats_oracle.py",
        "first_day": "2021-02-10",
        "returns": returns.tolist(),
        "monthly": {str(year): [float(x) for x in row] for year, row in stats.monthly_returns(returns).iterrows()},
        "drawdowns": [
            {
                "start": row.start,
                "valley": row.valley,
                "end": row.end,
                "days": int(row.days),
                "max": row["max drawdown"],
            }
            for _, row in falls.iterrows()
        ],
        "sharpe": by_day(stats.rolling_sharpe(returns, **window)),
        "volatility": by_day(stats.rolling_volatility(returns, **window)),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    main()
