"""Compare finished runs: `python flows/compare.py REPORT REPORT …` writes one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cxrmodel.errors import DataError
from cxrmodel.report.comparison import read_finished_run, render_comparison
from flows import terminal


def main(arguments: list[str] | None = None) -> int:
    """Write the page, and say where it is.

    Args:
        arguments: Of the command line; by default those of this process.

    Returns:
        The exit code: 0, or 1 where a report cannot be read or the page not be written.
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
        page = render_comparison([read_finished_run(url) for url in options.reports])
        options.output.write_text(page, encoding="utf-8")
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"comparison: {options.output.absolute()}")
    return 0


if __name__ == "__main__":
    with terminal.command("stopped; no page was written"):
        code = main()
    raise SystemExit(code)
