"""Which release of the project this is."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]
REVISION_VARIABLE = "CXRMODEL_REVISION"  # set in the image, which has no checkout


def version() -> str:
    """Return the package's version and the code's revision, such as `0.1.0+1a2b3c4`."""
    return f"{importlib.metadata.version('cxrmodel')}+{revision()}"


def revision() -> str:
    """Return the git revision of the code, or `unknown` outside a checkout and an image."""
    built_in = os.environ.get(REVISION_VARIABLE)
    if built_in:
        return built_in
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
