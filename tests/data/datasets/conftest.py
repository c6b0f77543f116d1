"""Miniatures of data sets as people download them: real names and headers, one byte per image."""

import gzip
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

OBSERVATIONS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)


def observed(**marks: object) -> str:
    """Return the cells of `OBSERVATIONS`, blank where nothing is given."""
    by_name = {name.replace("_", " "): str(mark) for name, mark in marks.items()}
    return ",".join(by_name.pop(name, "") for name in OBSERVATIONS.split(","))


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes files by name: tables as text, images where it is None."""

    def write(files: dict[str, str | None]) -> Path:
        for uri, text in files.items():
            path = tmp_path / "data" / uri
            path.parent.mkdir(parents=True, exist_ok=True)
            content = b"image " + uri.encode() if text is None else textwrap.dedent(text).encode()
            path.write_bytes(gzip.compress(content) if uri.endswith(".gz") else content)
        return tmp_path / "data"

    return write


@pytest.fixture
def indexed(lay_out, index_of) -> Callable[..., tuple[pd.DataFrame, pd.DataFrame, list[str]]]:
    """Return a function from files to the index by image, the ledger, and the notes."""

    def run(files: dict[str, str | None], **settings: object):
        folder = index_of(lay_out(files), **settings)
        index = pd.read_parquet(folder / "index.parquet").set_index("image")
        excluded = pd.read_parquet(folder / "excluded.parquet")
        return index, excluded, json.loads((folder / "notes.json").read_text())

    return run
