"""`cxrmodel`: use a trained model from the command line."""

from __future__ import annotations

import gc
import signal


def main() -> None:
    """Import and run the command line, `cxrmodel.inference.command_line`."""
    gc.disable()  # what is imported is no garbage, and to look for some takes a second
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is not signal.SIG_IGN:  # Ctrl-C among the imports ends without a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cxrmodel.inference import command_line  # noqa: PLC0415

    signal.signal(signal.SIGINT, interrupted)
    gc.freeze()
    gc.enable()
    command_line.main()


if __name__ == "__main__":
    main()
