"""Coverage of every interval and size of every test that reports print, against known truths.

python benchmarks/coverage/run.py [name ...] [runs=N]     default: all studies; see STUDIES
Prints the table of docs/coverage.md; rows appear as they are measured.
"""

import sys
import time

import choice_studies
import studies

STUDIES = studies.STUDIES | choice_studies.STUDIES

HEAD = "| interval or test | setting | nominal | measured | Monte-Carlo error | runs | without an interval |"


def main(arguments: list[str]) -> None:
    names = [a for a in arguments if "=" not in a]
    runs = [int(a.removeprefix("runs=")) for a in arguments if a.startswith("runs=")]
    unknown = sorted(set(names) - set(STUDIES))
    if unknown:
        sys.exit(f"coverage: unknown studies {unknown}; known are {list(STUDIES)}")
    print(HEAD, "|---|---|---|---|---|---|---|", sep="\n")
    for name in names or STUDIES:
        began = time.perf_counter()
        for row in STUDIES[name](*runs[:1]):
            measured = "none" if row.n == 0 else f"{row.measured:.3f}"
            error = "" if row.n <= 1 else f"{row.error:.3f}"
            withheld = f"{1 - row.n / row.n_runs:.0%}"
            print(
                f"| {row.study} | {row.setting} | {row.nominal:g} | {measured} | {error} | {row.n_runs} | {withheld} |",
                flush=True,
            )
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
