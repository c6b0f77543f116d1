"""`cxrmodel`: use a trained model from the command line."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line; see `cxrmodel.inference.command_line`."""
    gc.disable()  # what is imported is no garbage, and to look for some takes a second
    from cxrmodel.inference import command_line  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    command_line.main()


if __name__ == "__main__":
    main()
