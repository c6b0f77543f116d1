"""Runners take turns, each in a process of its own: no one changes another's settings."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

spawn = multiprocessing.get_context("spawn")


def in_turns(processes: dict[str, tuple[Any, ...]], num_rounds: int) -> dict[str, list[float]]:
    """Let processes work one at a time, round after round; the first round warms up.

    Args:
        processes: By name, a function and its arguments after the connection it answers on.
        num_rounds: Rounds after the first.

    Returns:
        What each answered, in seconds a unit, round by round.
    """
    ends: dict[str, Connection] = {}
    workers = []
    for name, (runner, *arguments) in processes.items():
        ends[name], theirs = spawn.Pipe()
        workers.append(spawn.Process(target=runner, args=(theirs, *arguments), daemon=True))
        workers[-1].start()
        theirs.close()
        ends[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(num_rounds + 1):
        for name, end in ends.items():
            end.send(True)
            seconds[name].append(end.recv())
    for end, worker in zip(ends.values(), workers, strict=True):
        end.send(False)
        worker.join()
    return {name: values[1:] for name, values in seconds.items()}


def take_turns(turns: Connection, work: Callable[[], float]) -> None:
    """Do a turn's work whenever told to, and answer with its seconds a unit."""
    turns.send(None)  # ready
    while turns.recv():
        turns.send(work())


def answer_of(runner: Callable[..., None], *arguments: Any) -> Any:
    """Return what a function answers in a process of its own."""
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=runner, args=(theirs, *arguments))
    process.start()
    theirs.close()
    answer = ours.recv()
    process.join()
    return answer


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the ratios of what ran next to each other."""
    return round(statistics.median(s / f for s, f in zip(slow, fast, strict=True)), 2)


def median_ms(seconds: list[float]) -> float:
    """Return a median in milliseconds."""
    return round(1e3 * statistics.median(seconds), 3)
