"""Archives as roots: which can be read in place, and what to write or do for the others."""

from __future__ import annotations

ARCHIVES = ("zip", "tar", "libarchive")
UNPACK = "Unpack the archive into a folder and set data.root to that."

IN_PLACE = {".zip": "zip", ".tar": "tar"}
COMPRESSED_TAR = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst",
    ".tar.lzma", ".tar.z",
)  # fmt: skip
OTHER = (*COMPRESSED_TAR, ".7z", ".rar")


def is_compressed_tar(url: str) -> bool:
    """Tell by its name whether an archive has to be unpacked from its start to any image."""
    return any(link.casefold().endswith(COMPRESSED_TAR) for link in url.split("::"))


def archive_hint(root: str) -> str:
    """Return what to do about a root that is an archive and not named as one, with a blank before.

    Args:
        root: Path or URL, as configured.
    """
    name = root.casefold().rstrip("/")
    outer, is_chain, _ = name.partition("::")
    if is_chain:
        protocol = next((IN_PLACE[end] for end in IN_PLACE if outer.endswith(end)), "")
        hint = f" It is an archive within an archive: set data.root to {protocol}::{root}"
        return hint if protocol else ""
    if name.startswith(tuple(f"{protocol}://" for protocol in ARCHIVES)):
        return f" An archive is named after `::`, as in {name.partition(':')[0]}::/data/FILE."
    for suffix, protocol in IN_PLACE.items():
        if name.endswith(suffix):
            return f" It is an archive: set data.root to {protocol}::{root.rstrip('/')}"
    return f" It is an archive. {UNPACK}" if name.endswith(OTHER) else ""
