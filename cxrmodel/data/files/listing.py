"""What a listing holds, and what it leaves out or finds elsewhere: counted, and logged per kind."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

DICOM_SUFFIXES = (".dcm", ".dicom")
RASTER_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (*RASTER_SUFFIXES, *DICOM_SUFFIXES)
TABLE_SUFFIXES = (
    ".csv", ".csv.gz", ".csv.zip", ".tsv", ".tsv.gz", ".tsv.zip", ".parquet", ".json"
)  # fmt: skip
ARCHIVE_SUFFIX = ".zip"
LISTED_SUFFIXES = (*IMAGE_SUFFIXES, *TABLE_SUFFIXES, ".txt", ARCHIVE_SUFFIX)
DICOM_PREFIX, DICOM_PREFIX_AT = b"DICM", 128
DICOM_DIRECTORY = "dicomdir"  # an index of a DICOM medium, itself in the form of a DICOM file

NUM_NAMED = 5

logger = logging.getLogger(__name__)


def is_bare(uri: str) -> bool:
    """Tell whether a file's name has no ending, as of many DICOM files: `IM0001`, `1.2.840.113`."""
    name = uri.rsplit("/", 1)[-1]
    _, dot, ending = name.rpartition(".")
    is_named = name and not name.startswith((".", "_")) and name.casefold() != DICOM_DIRECTORY
    return bool(is_named and (not dot or ending.isdigit()))


def is_image(uri: str) -> bool:
    """Tell by its name whether a listed file is an image."""
    return uri.casefold().endswith(IMAGE_SUFFIXES) or is_bare(uri)


def is_archive(uri: str) -> bool:
    """Tell by its name whether a listed file is a zip archive, and not a table in one."""
    name = uri.casefold()
    return name.endswith(ARCHIVE_SUFFIX) and not name.endswith(TABLE_SUFFIXES)


def is_listed(uri: str, suffixes: tuple[str, ...], bare: bool) -> bool:
    """Tell whether a file belongs into a listing of these endings, or of none where `bare`."""
    return uri.casefold().endswith(suffixes) or (bare and is_bare(uri))


class ListedFile(NamedTuple):
    """One file of a listing, ordered by its path.

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

    @classmethod
    def joined(cls, several: Iterable[Oddities]) -> Self:
        """Return those of several listings together."""
        joint = cls()
        for each in several:
            for kind, names in each._names.items():
                joint._names[kind] += names
        return joint

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
