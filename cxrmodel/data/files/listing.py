"""What a listing leaves out or finds elsewhere: counted, and told once a kind."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass

NUM_NAMED = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Oddity:
    """A kind of entry of a listing that a person should know of.

    Attributes:
        what: What becomes of such entries, and why.
        advice: What to do, as a sentence.
        level: Of the log.
    """

    what: str
    advice: str
    level: int = logging.WARNING


class Oddities:
    """Entries of one listing by kind, in the order in which they were met."""

    def __init__(self) -> None:
        self._names: defaultdict[Oddity, list[str]] = defaultdict(list)

    def add(self, kind: Oddity, name: str) -> None:
        """Take note of an entry."""
        self._names[kind].append(name)

    def count(self, kind: Oddity) -> int:
        """Return how many entries of a kind were met."""
        return len(self._names.get(kind, ()))

    def sentences(self, where: str) -> list[str]:
        """Return a message a kind, with a count and some names."""
        return [_sentence(kind, names, where) for kind, names in self._names.items()]

    def log(self, where: str) -> None:
        """Write a line per kind to the log."""
        for kind, names in self._names.items():
            logger.log(kind.level, "%s", _sentence(kind, names, where))


def _sentence(kind: Oddity, names: list[str], where: str) -> str:
    named = [name if name.isprintable() else ascii(name) for name in sorted(names)[:NUM_NAMED]]
    more = ", …" if len(names) > NUM_NAMED else ""
    return f"{kind.what}: {len(names):,} in {where} ({', '.join(named)}{more}). {kind.advice}"
