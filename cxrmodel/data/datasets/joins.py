"""Joins the rows of a data set's tables with its files; whatever is left out has a reason."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd

from cxrmodel.config import ALL_VIEWS, EACH_IMAGE, DataConfig
from cxrmodel.data.datasets.data_set import LATERAL, Entries, converted, parse_patient_id
from cxrmodel.data.datasets.name_rules import AS_THEY_ARE, NameMatch, among, last_parts
from cxrmodel.data.files.listing import RASTER_SUFFIXES
from cxrmodel.data.files.root import Root
from cxrmodel.data.ledger import Reason, ledger
from cxrmodel.errors import DataError

MAX_NAME_CHARS = 200
FEW_CLASHES = 0.01
NUM_COMPARED = 8
SHOWN_FOLDERS = 10

# A name is only ever compared with the listing, never used as a path; these say why it is odd.
_BAD_NAME = r"[\x00-\x1f\x7f-\x9f\\" "\ufffd" r"]|(?:^|/)\.\.?(?:/|$)|^$|//|^/|/$"
_HIDDEN = r"(?:^|/)(?:\.|__MACOSX/)"


def image_names(uris: pd.Series, num_parts: int) -> pd.Series:
    r"""Return the last parts of each path, in Unicode's composed form.

    A table from one system and files from another may encode the same accent differently. Some
    archives made on Windows have `\` between the parts.
    """
    names = [_composed(last_parts(uri, num_parts)) for uri in uris.tolist()]
    return pd.Series(names, index=uris.index, dtype=object)  # of the same bytes in Parquet as ever


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def named_files(listing: pd.DataFrame, num_parts: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the listing by image name, and ledger rows of files whose name is taken already.

    What programs keep in hidden folders (`.ipynb_checkpoints`, `.Trash-0`) takes no other file's
    name.
    """
    listing = listing.assign(image=image_names(listing["uri"], num_parts))
    is_hidden = listing["uri"].str.contains(_HIDDEN)
    listing = pd.concat([listing[~is_hidden], listing[is_hidden]])
    again = listing["image"].duplicated()
    files = listing[~again].set_index("image", drop=False)
    repeated = listing[again]
    details = repeated["uri"] + " beside " + repeated["image"].map(files["uri"])
    twins = ~details.map(str.isascii)
    details[twins] = details[twins].map(ascii)  # else two encodings of an accent look the same
    return files, ledger(repeated["image"], Reason.DUPLICATE_FILE, details)


def refuse_clashes(listing: pd.DataFrame, images: pd.Series, num_parts: int, root: Root) -> None:
    """Stop where folders hold different files of the same name, such as images and their masks.

    Files of the same name and size are taken for copies, and the first is used; a few pairs are
    compared, since uncompressed images of different content have the same size too. Different files
    of the same name stop the run if they concern more than 1 % of the images.

    Args:
        listing: Columns uri and bytes.
        images: Names of the images that the table asks for.
        num_parts: How many parts of a path name an image.
        root: Where the files lie.

    Raises:
        DataError: It is unclear which folder is meant.
    """
    listing = listing.assign(image=image_names(listing["uri"], num_parts))
    listing = listing[among(listing["image"], images)]
    named = listing[listing["image"].duplicated(keep=False)]
    if named.empty:
        return
    parts = named["uri"].str.split(r"[/\\]", regex=True)
    named = named.assign(folder=parts.str[:-num_parts].str.join("/"))
    first = named.groupby("image")[["uri", "bytes"]].transform("first")
    other = named["uri"] != first["uri"]
    of_one_size = other & (named["bytes"] == first["bytes"])
    pairs = list(zip(named["uri"][of_one_size], first["uri"][of_one_size], strict=True))
    if _are_copies(pairs, root):
        other &= ~of_one_size
    clashing = named[named["image"].isin(named["image"][other])]
    count, total = clashing["image"].nunique(), listing["image"].nunique()
    if count > FEW_CLASHES * total:
        raise DataError(_clash(clashing, count, total, root.root))


def _clash(files: pd.DataFrame, count: int, total: int, where: str) -> str:
    counts = files["folder"].value_counts()
    shown = [f"{folder or 'the root itself'} ({num:,})" for folder, num in counts.items()]
    more = f" and {len(shown) - SHOWN_FOLDERS:,} more" if len(shown) > SHOWN_FOLDERS else ""
    twins = files[files["image"] == files["image"].iloc[0]]
    example = " and ".join(
        f"{file.uri if file.uri.isascii() else ascii(file.uri)} ({file.bytes:,} bytes)"
        for file in twins.itertuples()
    )
    remedy = (
        "Set data.images to the folder that holds the images, or to a glob such as `images_*`."
        if len(set(twins["folder"])) > 1
        else "They are two spellings of one name: rename or delete one of each."
    )
    return (
        f"{count:,} of {total:,} images that the table names have several, different files of that "
        f"name in {where}: in the folders {', '.join(shown[:SHOWN_FOLDERS])}{more}, for example "
        f"{example}. {remedy}"
    )


def _are_copies(pairs: list[tuple[str, str]], root: Root) -> bool:
    """Compare a few pairs of files, spread evenly over all."""
    if not pairs:
        return True
    drawn = np.unique(np.linspace(0, len(pairs) - 1, NUM_COMPARED).astype(int)).tolist()
    return all(
        root.read_required(pairs[number][0]) == root.read_required(pairs[number][1])
        for number in drawn
    )


def table_names(entries: Entries) -> pd.Series:
    """Return the table's names of its images, in Unicode's composed form."""
    names = entries.rows["image"].fillna("")
    return pd.Series(map(_composed, names.tolist()), index=names.index, dtype="str")


def join_rows(
    entries: Entries,
    files: pd.DataFrame,
    num_parts: int,
    match: NameMatch = AS_THEY_ARE,
    config: DataConfig = DataConfig(),  # noqa: B008 - it is frozen
) -> pd.DataFrame:
    """Return the rows with their file's uri, and columns reason (empty if usable) and detail.

    Args:
        entries: The rows as the data set's module has read them.
        files: Listing by image name.
        num_parts: How many parts of a path name an image.
        match: Resolves names that differ from the files' in form.
        config: How to know the patient, and which views to use.
    """
    image = match.resolve(table_names(entries))
    rows = entries.rows.assign(image=image, uri=image.map(files["uri"]), reason="", detail="")
    rows["patient_id"] = _patients(rows, config.patient_from)
    exclude(rows, _is_bad_name(image, num_parts, rows["uri"]), Reason.BAD_IMAGE_NAME)
    numbers = pd.Series(rows.index + 1, index=rows.index).astype("str")
    exclude(rows, image.duplicated(), Reason.DUPLICATE_ROW, "row " + numbers + " of the table")
    exclude(rows, rows["uri"].isna(), Reason.IMAGE_MISSING)
    exclude_people(rows, ~is_dicom(rows["uri"]), config.views)
    for reason in filter(None, entries.reasons.unique()):
        exclude(rows, entries.reasons == reason, Reason(reason), entries.details)
    return rows


def is_dicom_name(uri: str) -> bool:
    """Tell by its name whether an image is a DICOM file, as all without an ending are."""
    return not uri.casefold().endswith(RASTER_SUFFIXES)


def is_dicom(uris: pd.Series) -> pd.Series:
    """Tell which files are DICOM by name: their tags may say what the table does not."""
    return uris.notna() & ~uris.str.lower().str.endswith(RASTER_SUFFIXES, na=True)


def exclude_people(rows: pd.DataFrame, where: pd.Series, views: str) -> None:
    """Exclude rows without a patient, and lateral views unless `views` is `all`, among `where`."""
    exclude(rows, where & (rows["patient_id"] == ""), Reason.BAD_PATIENT_ID)
    if views != ALL_VIEWS:
        exclude(rows, where & (rows["view"] == LATERAL), Reason.LATERAL_VIEW)


def _patients(rows: pd.DataFrame, patient_from: str) -> pd.Series:
    """Return whose image each row is, by the rule of `data.patient_from` where there is one."""
    if not patient_from:
        return rows["patient_id"]
    if patient_from == EACH_IMAGE:
        return rows["image"]
    found = rows["uri"].astype("str").str.extract(patient_from, expand=False)
    stated = converted(found.fillna(""), parse_patient_id).astype("str")
    return rows["patient_id"].mask(stated != "", stated)


def exclude(
    rows: pd.DataFrame, where: pd.Series, reason: Reason, details: pd.Series | None = None
) -> None:
    """Give a reason to rows that have none yet: the first that applies is recorded."""
    new = where & (rows["reason"] == "")
    rows.loc[new, "reason"] = str(reason)
    if details is not None:
        rows.loc[new, "detail"] = details[new]


def ledger_of(rows: pd.DataFrame, files: pd.DataFrame, surplus: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger of unused rows, of files without a row and of surplus files."""
    without_row = files[~among(files["image"], rows["image"])]
    unused = rows[rows["reason"] != ""]
    parts = [
        ledger(unused["image"], unused["reason"], unused["detail"]),
        ledger(without_row["image"], Reason.ROW_MISSING, without_row["uri"]),
        surplus,
    ]
    excluded = pd.concat(parts, ignore_index=True)
    shown = {each: list(map(_shown, excluded[each].tolist())) for each in ("image", "detail")}
    return excluded.assign(**shown).astype("str")


def _is_bad_name(images: pd.Series, num_parts: int, uris: pd.Series) -> pd.Series:
    """Tell which names cannot be those of files; one near the root may have fewer parts."""
    is_long = images.str.len() > MAX_NAME_CHARS
    is_elsewhere = uris.isna() & (images.str.count("/") != num_parts - 1)
    bad: pd.Series = is_long | is_elsewhere | images.str.contains(_BAD_NAME)
    return bad


def _shown(text: str) -> str:
    """Return untrusted text as printable characters, cut to a reasonable length."""
    if len(text) <= MAX_NAME_CHARS and text.isprintable():
        return text
    return text[:MAX_NAME_CHARS].encode("unicode_escape").decode()
