"""Places of data and results: a folder or a URL, written in one way wherever a setting names it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from fsspec import available_protocols

from cxrmodel.settings import did_you_mean

ALIASES_FOLDER = "_aliases"  # below the store's root; here, as using a bundle needs no settings
CHAIN = "::"  # as in zip::s3://bucket/images.zip, the outermost first
LOCAL = ("file", "local")
WEB = ("http", "https")
BUCKETS = (*WEB, "s3", "s3a", "gs", "gcs", "az", "abfs")  # a bucket or a machine comes first
ARCHIVES = ("zip", "tar", "libarchive")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?(.*)", re.DOTALL)
WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
THIS_MACHINE = ("", "localhost", ".", "..")
EMPTY = "It is empty. Give a folder or a URL, or leave this setting out."
SECRET_FIELD = re.compile(r"sig$|signature|token|password|secret|credential|access_?key", re.I)


def normal_place(text: str) -> str:
    """Return a folder or URL in its one form.

    A folder is a plain path: `file://` is gone and `~` is the home folder. A relative one stays
    relative, for a deployment's machine to resolve. No place ends in a slash, except a page of
    a web server. In a chain such as `zip::~/images.zip` the same is done to the last link.

    Raises:
        ValueError: It is empty, carries credentials, or is no place that this machine can open.
    """
    if not text.strip() or "\0" in text:
        raise ValueError(EMPTY)
    if text != text.strip():
        raise ValueError(
            "It begins or ends with a blank or a line break. Leave that out, or rename the folder."
        )
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("It has a character that is not UTF-8: rename the folder, or link to it.")
    _refuse_credentials(text)
    *archives, last = text.split(CHAIN)
    place = _folder_or_url(last)
    if not archives and place.startswith(tuple(f"{scheme}://" for scheme in ARCHIVES)):
        raise ValueError("It names no archive: one follows ::, as in zip::/data/images.zip")
    return CHAIN.join([*map(_archive, archives), place])


def normal_store(text: str) -> str:
    """Return the normal form of a place that is written to.

    Raises:
        ValueError: As of `normal_place`; or nothing can be written there.
    """
    place = normal_place(text)
    if CHAIN in place:
        raise ValueError(
            "It is an archive or a chain, which cannot be written to. Give a folder "
            "or the URL of a bucket."
        )
    if place.startswith(tuple(f"{scheme}://" for scheme in WEB)):
        raise ValueError(
            "It is on a web server, which can only be read. Give a folder or the URL of a bucket."
        )
    return place


def normal_folder(text: str) -> str:
    """Return the normal form of a folder on this machine.

    Raises:
        ValueError: As of `normal_place`; or it is a URL.
    """
    place = normal_store(text)
    if not is_folder(place):
        raise ValueError("It is a URL, and has to be a folder of the machine that works there.")
    return place


def is_folder(place: str) -> bool:
    """Say whether a place in its normal form is a path of this machine."""
    return CHAIN not in place and "://" not in place


def absolute(place: str, base: Path) -> str:
    """Return a place with its path below a folder, where it is a relative one."""
    *archives, last = place.split(CHAIN)
    return CHAIN.join([*archives, str(base / last) if is_folder(last) else last])


def lies_in(inner: str, outer: str) -> bool:
    """Say whether a place is another one or below it; links of the file system are followed."""
    if is_folder(inner) and is_folder(outer):
        return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))
    return f"{inner}/".startswith(f"{outer}/")


def _refuse_credentials(text: str) -> None:
    for link in text.split(CHAIN):
        parts = urlsplit(link)
        if parts.username or parts.password:
            where = "before the '@'"
        else:
            fields = [name for name, _ in parse_qsl(parts.query)] if parts.scheme else []
            secret = next((name for name in fields if SECRET_FIELD.search(name)), None)
            where = f"in {secret}=…" if secret else ""
        if where:
            raise ValueError(
                f"It must not carry credentials, and it does {where}. Set them in the "
                "environment, a profile or a role of the cloud's own chain."
            )


def _archive(link: str) -> str:
    scheme, separator, rest = link.partition("://")
    return f"{_known(scheme)}{separator}{rest}"


def _folder_or_url(link: str) -> str:
    if os.name == "posix" and WINDOWS.match(link):
        raise ValueError(
            "It is a path of Windows, and this machine has none. Give the path by "
            "which this machine reaches that folder, such as /mnt/c/…"
        )
    found = SCHEME.fullmatch(link)
    if found is None:
        return _path(link)
    scheme, slashes, rest = found[1].lower(), found[2], found[3]
    if scheme in LOCAL:
        return _path(_of_this_machine(rest) if slashes else rest)
    if slashes:
        if scheme in BUCKETS and not rest.partition("/")[0]:
            raise ValueError(f"It names no bucket or machine: one follows {scheme}://")
        return f"{_known(scheme)}://{rest if scheme in WEB else rest.rstrip('/')}"
    if scheme in available_protocols() and rest.startswith("/"):
        raise ValueError(
            f"It lacks a slash: a URL begins with {scheme}://. A folder of such a "
            "name is written with ./ before it."
        )
    return _path(link)


def _of_this_machine(rest: str) -> str:
    host = rest.partition("/")[0]
    if host in THIS_MACHINE or host.startswith("~"):
        return rest.removeprefix("localhost")
    raise ValueError(
        f"It names a machine {host!r}: file:// is followed by a path that begins with "
        f"a slash, as in file:///{rest}"
    )


def _known(scheme: str) -> str:
    known = available_protocols()
    if scheme.lower() in known:
        return scheme.lower()
    raise ValueError(f"{scheme!r} is no protocol that is known here{did_you_mean(scheme, known)}.")


def _path(text: str) -> str:
    if not text:
        raise ValueError(EMPTY)
    if text.startswith("./"):  # without it `./~` would be the home folder, `./s3:/` a URL
        path = str(Path(text))
        return path if path == "." else f"./{path}"
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{str(error).rstrip('.')}: write the path out.") from error
