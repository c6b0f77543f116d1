"""Names in a table that differ from those of the files only in form, such as case or folder.

A rule turns a name into a key. It is applied only where that leaves no doubt: no two names of the
table and no two files share a key, and every name of the table has a file or every file a name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import pandas as pd

from cxrmodel.errors import DataError

ENDINGS = frozenset(
    {"png", "jpg", "jpeg", "dcm", "dicom", "tif", "tiff", "bmp", "gif", "webp", "jp2"}
)
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
SHOWN_CHARS = 80


def last_parts(path: str, num_parts: int) -> str:
    r"""Return the last parts of a path whose parts are separated by `/`, or by `\`."""
    return "/".join(path.replace("\\", "/").rsplit("/", num_parts)[-num_parts:])


def without_ending(name: str) -> str:
    """Return a name without the ending of an image file."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in ENDINGS else name


def among(names: pd.Series, known: pd.Series | pd.Index) -> pd.Series:
    """Tell which names are among others; `Series.isin` takes 4 µs for each of these."""
    others = set(known.tolist())
    found = [name in others for name in names.tolist()]
    return pd.Series(found, index=names.index, dtype="bool")


RULES: Mapping[str, Callable[[str, int], str]] = {
    "folder": last_parts,
    "case": lambda name, _: name.casefold(),
    "ending": lambda name, _: without_ending(name),
    "leading zeros": lambda name, _: _LEADING_ZEROS.sub("", name),  # which spreadsheets remove
}
"""What is ignored in a name, in words for people; combined in this order."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NameMatch:
    """Maps the names of a table to those of files.

    Attributes:
        rules: Keys of `RULES` that were applied; empty where names are compared as they are.
        num_parts: How many parts of a path name an image.
        files: File by key.
        note: What was applied, with an example; empty where nothing was.
    """

    rules: tuple[str, ...] = ()
    num_parts: int = 1
    files: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def resolve(self, names: pd.Series) -> pd.Series:
        """Return the name of each file; a name without a file stays as it is."""
        if not self.rules:
            return names
        found = [self._file_of(name) for name in names.tolist()]
        return pd.Series(found, index=names.index, dtype="str")

    def _file_of(self, name: str) -> str:
        return self.files.get(key_of(name, self.rules, self.num_parts), name)


AS_THEY_ARE = NameMatch()


def key_of(name: str, rules: Iterable[str], num_parts: int) -> str:
    """Return what the rules leave of a name."""
    for rule in rules:
        name = RULES[rule](name, num_parts)
    return name


def match_names(
    names: Iterable[str], files: Iterable[str], num_parts: int, table: str = "table"
) -> NameMatch:
    """Return the weakest combination of rules that matches a table to a listing without doubt.

    Args:
        names: What the table calls its images, each once.
        files: Names of the files, each once.
        num_parts: How many parts of a path name an image.
        table: What to call the table in a note.

    Returns:
        The match; `AS_THEY_ARE` where no rule is needed, or where none is beyond doubt.
    """
    names, files = {name for name in names if name}, set(files)
    enough = min(len(names), len(files))
    if len(names & files) == enough:
        return AS_THEY_ARE
    for rules, of_names, of_files in _by_key(names, files, num_parts):
        met = of_names.keys() & of_files.keys()
        if len(of_names) == len(names) and len(of_files) == len(files) and len(met) == enough:
            pairs = [(of_names[key], of_files[key]) for key in met]
            name, file = min(pair for pair in pairs if pair[0] != pair[1])
            note = (
                f"The {table}'s names differ from those of the files in {_said(rules)} alone, and "
                f"are matched, as none has two files: {quoted(name)} is the file {quoted(file)}."
            )
            return NameMatch(rules, num_parts, {key: of_files[key] for key in met}, note)
    return AS_THEY_ARE


def match_without_endings(names: Iterable[str], files: Iterable[str], num_parts: int) -> NameMatch:
    """Return the match of names to files whose endings say nothing, such as copies as PNG.

    Raises:
        DataError: Images are there in several formats.
    """
    rules = ("ending",)
    files = set(files)
    by_key = _unique(files, rules, num_parts)
    named = {key_of(name, rules, num_parts) for name in names if name}
    if len(by_key) < len(files):
        keys = {file: key_of(file, rules, num_parts) for file in files}
        several = sorted(x for x, key in keys.items() if key in named and key not in by_key)
    else:
        several = []
    if several:
        raise DataError(
            f"{len(several):,} files are the same images in several formats, such as "
            f"{' and '.join(map(quoted, several[:2]))}: set data.images to those of one, as in "
            "`**/*.png`."
        )
    return NameMatch(rules, num_parts, {key: by_key[key] for key in named & by_key.keys()})


def resolve_list(names: pd.Series, images: pd.Series, match: NameMatch, table: str) -> pd.Series:
    """Return the images that a list beside the table names, by the table's rules or its own.

    Where it names none of the images, the log says how they differ.

    Args:
        names: What the list calls its images.
        images: Names of the images.
        match: The match of the table.
        table: What to call the list in the log.
    """
    names = match.resolve(names)
    if names.empty or among(names, images).any():
        return names
    own = match_names(names.unique(), images, match.num_parts, table)
    note = own.note or explain_mismatch(names.unique(), images, match.num_parts, table)
    if note:
        logger.warning("%s", note)
    return own.resolve(names)


def explain_mismatch(
    names: Iterable[str], files: Iterable[str], num_parts: int, table: str = "table"
) -> str:
    """Describe a name and a file that do not match, and the rules by which most would.

    Args:
        names: Names in the table that no file has.
        files: Names of files that the table lacks.
        num_parts: How many parts of a path name an image.
        table: What to call the table.

    Returns:
        One or two sentences; empty where no rule makes any match.
    """
    names, files = sorted({name for name in names if name}), sorted(set(files))
    if not names or not files:
        return ""
    met: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for rules, of_names, of_files in _by_key(names, files, num_parts):
        met[rules] = [(of_names[key], of_files[key]) for key in of_names.keys() & of_files.keys()]
    best = max(met, key=lambda rules: len(met[rules]))
    if not met[best]:
        return ""
    name, file = min(met[best])
    return (
        f"The {table} names {quoted(name)} for example, and there is a file {quoted(file)}: "
        f"but for the {_said(best)}, {len(met[best]):,} of {len(names):,} names without a file "
        f"meet one of {len(files):,} files without a row. Write the files' names into the {table}."
    )


def _by_key(
    names: Iterable[str], files: Iterable[str], num_parts: int
) -> Iterator[tuple[tuple[str, ...], dict[str, str], dict[str, str]]]:
    """Yield each combination of rules, the weakest first, with names and files by their key."""
    for count in range(1, len(RULES) + 1):
        for rules in combinations(RULES, count):
            yield rules, _unique(names, rules, num_parts), _unique(files, rules, num_parts)


def _unique(names: Iterable[str], rules: tuple[str, ...], num_parts: int) -> dict[str, str]:
    """Return the name of each key that only one name has."""
    found: dict[str, str] = {}
    shared = set()
    for name in names:
        key = key_of(name, rules, num_parts)
        if key in found:
            shared.add(key)
        found[key] = name
    return {key: name for key, name in found.items() if key not in shared}


def _said(rules: tuple[str, ...]) -> str:
    return " and ".join(rules)


def quoted(name: str) -> str:
    """Return a name as printable text of a reasonable length, between backticks."""
    shown = name if name.isprintable() else name.encode("unicode_escape").decode()
    return f"`{shown[:SHOWN_CHARS]}`"
