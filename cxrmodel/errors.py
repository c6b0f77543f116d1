"""What callers of the library handle; a plain bad value is a ValueError."""

from __future__ import annotations


class CxrModelError(Exception):
    """Base of the errors that a user can act on; its text is meant to be read by a person."""


class DataError(CxrModelError):
    """The data set is missing, unreadable, or holds nothing usable."""


class NothingToJudgeError(DataError):
    """No image or no label is left by which two models could be compared."""


class FileChangedError(DataError):
    """A file was replaced after it was listed."""


class UnreadableFileError(DataError):
    """One file cannot be read, however often it is tried; other files are not affected."""


class ChecksumError(UnreadableFileError):
    """The content of a file does not match the checksum that its store states."""


class ImageError(CxrModelError):
    """One image cannot become pixels.

    Attributes:
        reason: A value of `cxrmodel.data.ledger.Reason`.
        detail: What was found, for the ledger.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StoreError(CxrModelError):
    """The store of results cannot be used as it is set."""


class DiskFullError(CxrModelError):
    """A disk that results or scratch files are written to has no room left."""


class ScratchSpaceError(DiskFullError):
    """The node-local scratch folder is too small for what was asked."""


class SplitError(CxrModelError):
    """The data set cannot be split as asked."""


class LeakageError(CxrModelError):
    """A patient is in two parts of a split that promises otherwise."""


class DivergedError(CxrModelError):
    """Training produced a loss that is not finite."""


class DamagedArtifactError(CxrModelError):
    """A stored file is missing, or of another size or checksum than its manifest says."""
