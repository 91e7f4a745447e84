"""How often the verdict is `edge` on simulated markets, by what was tried. Resumable; about half a second a market.

python benchmarks/coverage/verdict_size.py null FOLDER 400       six kinds of market without an edge, free trading
python benchmarks/coverage/verdict_size.py power FOLDER 200      planted edges, 1.18 years of test days
python benchmarks/coverage/verdict_size.py power3 FOLDER 140     the same, three years of test days
python benchmarks/coverage/verdict_size.py costs FOLDER 400      the six kinds with 4 bps a round trip
python benchmarks/coverage/verdict_size.py plants FOLDER 100     an edge that decays, one that lives in one regime
"""

import sys
from pathlib import Path

from tradsys.research.power_study.markets import EVALUATIONS, KINDS
from tradsys.research.power_study.quick_research import Setting
from tradsys.research.power_study.quick_study import read_cells, run_blocks

STUDIES = {
    "null": [Setting(kind) for kind in KINDS],
    "costs": [Setting(kind, round_trip=0.0004) for kind in KINDS],
    "power": [Setting("clusters", edge=edge) for edge in (0.05, 0.06, 0.065, 0.07, 0.08)],
    "power3": [Setting("clusters", edge=edge, years=7.5) for edge in (0.035, 0.04, 0.045, 0.05)],
    "plants": [Setting("clusters", plant, 0.15) for plant in ("decaying", "one_regime")],
}


def main(name: str, folder: str, n_markets: str) -> None:
    place = Path(folder) / name
    place.mkdir(parents=True, exist_ok=True)
    for _ in run_blocks(STUDIES[name], int(n_markets), place):
        pass
    print(f"{'kind':14} {'plant':10} edge   n    Sharpe  " + "  ".join(f"{look:>16}" for look in EVALUATIONS))
    for cell in read_cells(place):
        s = cell.setting
        shares = "  ".join(
            f"{100 * found / cell.n:5.1f} [{100 * cell.interval(k)[0]:4.1f},{100 * cell.interval(k)[1]:4.1f}]"
            for k, found in enumerate(cell.edges)
        )
        print(f"{s.kind:14} {s.plant:10} {s.edge:<6} {cell.n:<4} {cell.sharpe:6.2f}  {shares}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
