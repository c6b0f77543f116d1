"""What a file system raises that meets a server or a file it was not made for."""

from __future__ import annotations

import lzma
import struct
import sys
import tarfile
import zipfile
import zlib

UNFORESEEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError,
    RuntimeError, TypeError, ValueError, lzma.LZMAError, struct.error, tarfile.TarError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip

UNFORESEEN_OF_MODULES = {
    "aiohttp.client_exceptions": "ClientError",
    "azure.core.exceptions": "AzureError",
    "botocore.exceptions": "BotoCoreError",
    "ftplib": "Error",
    "gcsfs.retry": "HttpError",
    "google.api_core.exceptions": "GoogleAPIError",
    "google.auth.exceptions": "GoogleAuthError",
    "paramiko.ssh_exception": "SSHException",
    "smbprotocol.exceptions": "SMBException",
}
"""The same for what is not always installed or imported: class by module."""


def unforeseen() -> tuple[type[Exception], ...]:
    """Return the unexpected errors of file systems, those of optional packages included."""
    loaded = (
        getattr(sys.modules.get(module), name, None)  # None too while another thread imports it
        for module, name in UNFORESEEN_OF_MODULES.items()
    )
    return (*UNFORESEEN, *filter(None, loaded))


def failures() -> tuple[type[Exception], ...]:
    """Return whatever file systems raise, for a reader to whom one file is like another."""
    return (OSError, *unforeseen())
