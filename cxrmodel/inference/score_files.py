"""Scores of many images on their way into one file, which appears whole or not at all."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

METADATA = b"cxrmodel"
ROWS_TOGETHER = 4096  # in one row group: a batch is far too few, as each has a header per column
KINDS = (".parquet", ".csv")


class ScoreFile(Protocol):
    """Takes tables of scores one after another."""

    def write(self, table: pd.DataFrame) -> None:
        """Append rows."""
        ...


class _ParquetFile:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer, self._schema = pq.ParquetWriter(path, schema, compression="zstd"), schema
        self._waiting: list[pa.Table] = []

    def write(self, table: pd.DataFrame) -> None:
        self._waiting.append(pa.Table.from_pandas(table, schema=self._schema, preserve_index=False))
        if sum(map(len, self._waiting)) >= ROWS_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self._writer.close()


@contextmanager
def open_score_file(path: Path, empty: pd.DataFrame, about: dict[str, Any]) -> Iterator[ScoreFile]:
    """Open a `.parquet` or `.csv` file for scores.

    What is known of the scores lies in the Parquet file's metadata under `cxrmodel`, or beside a
    CSV file `<name>.csv` as `<name>.csv.json`.

    Args:
        path: Where the file appears once all is written.
        empty: A table without rows, for the columns and their types.
        about: What is known of the scores.

    Raises:
        ValueError: The name ends otherwise, or is that of a folder.
    """
    text = json.dumps(about, sort_keys=True)
    kind = path.suffix.casefold()
    if kind not in KINDS:
        raise ValueError(f"--out {path} has to end in {' or '.join(KINDS)}.")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder: give the name of a file in it.")
    partial = path.with_name(f"{path.name[:100]}.{uuid.uuid4().hex}.partial")
    try:
        if kind == ".parquet":
            schema = pa.Schema.from_pandas(empty, preserve_index=False)
            schema = schema.with_metadata({**(schema.metadata or {}), METADATA: text.encode()})
            with _ParquetFile(partial, schema) as file:
                yield file
        else:
            with partial.open("w", encoding="utf-8", newline="") as stream:
                empty.to_csv(stream, index=False)
                yield _CsvFile(stream)
            about_path(path).write_text(f"{text}\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _CsvFile:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, table: pd.DataFrame) -> None:
        table.to_csv(self._stream, index=False, header=False)


def about_path(path: Path) -> Path:
    """Return where it is written what is known of the scores in a CSV file."""
    return path.with_name(f"{path.name}.json")


def read_about(path: Path) -> dict[str, Any]:
    """Return what is known of the scores of a Parquet file."""
    found: dict[str, Any] = json.loads(pq.read_schema(path).metadata[METADATA])
    return found
