"""What a listing holds, and what it leaves out or finds elsewhere: counted, and logged per kind."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass

DICOM_SUFFIX = ".dcm"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", DICOM_SUFFIX)

NUM_NAMED = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, order=True, slots=True)
class ListedFile:
    """One file of a listing.

    Attributes:
        uri: Path relative to the root, '/'-separated.
        bytes: Size.
        version: ETag, or modification time in nanoseconds, or whatever the store offers.
    """

    uri: str
    bytes: int
    version: str


@dataclass(frozen=True)
class Oddity:
    """A kind of listing entry that a person should know about.

    Attributes:
        what: What becomes of such entries, and why.
        advice: What to do, as a sentence.
        level: Level of its log line.
    """

    what: str
    advice: str
    level: int = logging.WARNING


class Oddities:
    """Entries of one listing by kind, in the order in which they appeared."""

    def __init__(self) -> None:
        self._names: defaultdict[Oddity, list[str]] = defaultdict(list)

    def add(self, kind: Oddity, name: str) -> None:
        """Record an entry."""
        self._names[kind].append(name)

    def sentences(self, where: str) -> list[str]:
        """Return one message per kind, with a count and some names."""
        return [_sentence(kind, names, where) for kind, names in self._names.items()]

    def log(self, where: str) -> None:
        """Write a line per kind to the log."""
        for kind, names in self._names.items():
            logger.log(kind.level, "%s", _sentence(kind, names, where))


def _sentence(kind: Oddity, names: list[str], where: str) -> str:
    named = [name if name.isprintable() else ascii(name) for name in sorted(names)[:NUM_NAMED]]
    more = ", …" if len(names) > NUM_NAMED else ""
    return f"{kind.what}: {len(names):,} in {where} ({', '.join(named)}{more}). {kind.advice}"
