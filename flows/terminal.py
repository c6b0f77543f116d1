"""How a command behaves in a terminal: signals, closed pipes, narrow encodings."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import NoReturn

# Ctrl-C, a service manager or `timeout`, a closed terminal
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 10.0
EXIT_FAILED = 1
SIGNALLED = 128  # plus the signal's number: the exit code that shells expect


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end.

    Attributes:
        code: Exit code to end with.
    """

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Endings:
    """The signals that end a command: the first one stops it, further ones soon after do nothing.

    Before the command ends, a checkpoint is written and Prefect's server is notified. Where that
    takes long, for example with a server out of reach, one more signal ends it at once.
    """

    def __init__(self) -> None:
        self._stopped_at: float | None = None
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def handle(self) -> None:
        """Handle the signals from here on; Prefect takes SIGTERM for itself when a flow begins."""
        for number in ENDINGS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as below `nohup`
                signal.signal(number, self._stop)

    def _stop(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:  # the terminal has gone: writing to it would be an error
            for stream in self._terminals:
                _to_nowhere(stream)
        now = time.monotonic()
        if self._stopped_at is None:
            self._stopped_at = now
            raise Stopped(SIGNALLED + number)
        if now - self._stopped_at > PATIENCE_S:
            os.write(2, b"stopped at once\n")
            os._exit(SIGNALLED + number)


def before_imports() -> None:
    """Let a command import, which takes seconds, without a traceback where Ctrl-C ends it.

    The garbage collector rests until `command`: what is imported is no garbage.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def command(when_stopped: str) -> Iterator[Endings]:
    """Run a command in a terminal: whatever stops it, it ends with a line and an exit code.

    Args:
        when_stopped: Line to print where a signal has stopped it.
    """
    gc.freeze()  # what is imported stays: looking through it again takes longer than importing it
    gc.enable()
    _open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have any letter
    endings = Endings()
    endings.handle()
    try:
        yield endings
        sys.stdout.flush()
    except Stopped as stopped:
        _end(when_stopped, stopped.code)
    except SystemExit:
        _flush_or_forget()
        raise
    except BrokenPipeError:  # of `| head`, which has read enough
        _to_nowhere(sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        fail(str(error))
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)  # nothing is left to stop


def print_named(texts: Mapping[str, str]) -> None:
    """Print a line per text, with its name before it."""
    width = max(map(len, texts), default=0) + 2
    for name, text in texts.items():
        print(f"{name + ':':<{width}}{text}")


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Say what went wrong, and exit."""
    _end(f"error: {message}", code)


def _end(message: str, code: int) -> NoReturn:
    _flush_or_forget()
    with suppress(OSError):  # nobody reads it
        print(message, file=sys.stderr, flush=True)
    raise SystemExit(code)


def _flush_or_forget() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try again, and complain
        _to_nowhere(sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Let a command that is started without a stream, as by `>&-`, write to nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the process ends


def _to_nowhere(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)
