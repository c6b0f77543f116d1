"""Compare finished runs: `python flows/compare.py REPORT REPORT …` writes one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

from cxrmodel.errors import DataError
from cxrmodel.report.comparison.finished_run import read_finished_run
from cxrmodel.report.comparison.page import render_comparison

EXIT_BAD_INPUT = 2  # as argparse's own


def main(arguments: list[str] | None = None) -> int:
    """Write the page, and say where it is.

    Args:
        arguments: Of the command line; by default those of this process.

    Returns:
        The exit code: 0, or 2 where a report cannot be read or the page cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python flows/compare.py", description=__doc__)
    parser.add_argument(
        "reports", nargs="+", metavar="REPORT", help="folder or URL of a report; the first is A"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("comparison.html"), help="page to write"
    )
    options = parser.parse_args(arguments)
    try:
        runs = [read_finished_run(url) for url in options.reports]
        options.output.write_text(render_comparison(runs), encoding="utf-8")
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(
            f"error: The page could not be written to {options.output}: {error.strerror}. Choose "
            "another file with --output.",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    for run in runs:
        for file in run.missing:
            print(
                f"note: {run.root} has no {file}, so its images are not shown: its report was "
                "written by an older version of this package, or had no image to show.",
                file=sys.stderr,
            )
    print(f"comparison: {options.output.absolute()}")
    return 0


if __name__ == "__main__":
    with terminal.command("stopped; no page was written"):
        code = main()
    raise SystemExit(code)
