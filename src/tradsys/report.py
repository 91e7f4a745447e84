"""Writes the HTML report of a finished run again, from its report.json.

python -m tradsys.report                       the latest training run
python -m tradsys.report run=runs/train/<run>

Exit code 2 where the trial ledger of these runs is damaged: the deflated figures on the page could not be verified.
"""

from pathlib import Path

from tradsys.config.compose import ConfigError, as_dict, compose, run_command
from tradsys.core.received import plain_texts, read_json, refused_in_one_line
from tradsys.core.run_code import names_its_code


def work(argv: list[str]) -> None:
    """Reads report.json and writes report.html next to it."""
    from tradsys.reports.run.console import print_run
    from tradsys.reports.run.page import write_report
    from tradsys.reports.run.report import RunReport
    from tradsys.research.pipeline.trial_ledger import check_ledger

    plain = as_dict(compose("report", argv))
    folder, paths = Path(str(plain["run"])), plain["paths"]
    path = folder / "report.json"
    if not path.is_file():
        raise ConfigError(
            f"report: {folder} holds no report.json; a run that finished has one; give run=runs/train/<run>"
        )
    fix = f"restore it from a copy, or create it again: python -m tradsys.train resume={folder}"
    with (
        names_its_code(f"report: {folder}", folder, ConfigError),
        refused_in_one_line(f"report: {path}", fix, ConfigError),
    ):
        stored = plain_texts(read_json(path, fix, ConfigError))
        report = RunReport.from_json(stored, f"report: {path}", fix).to_json()
        if folder.resolve().is_relative_to(Path(paths["runs"]).resolve()):
            check_ledger(paths["ledger"], paths["runs"])
        write_report(report, folder / "report.html")
        print_run(report, folder)


def main() -> None:
    """Command-line entry point."""
    run_command("report", work)


if __name__ == "__main__":
    main()
