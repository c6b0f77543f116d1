"""A long table written in parts, so that what is finished survives whatever comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


class TableInParts:
    """A table whose rows are computed some at a time, each part a Parquet file.

    Args:
        directory: Where the parts lie; made when first written to.
        schema: Columns; one is `image`.
        images: (N,), names of the images, a row each.
        part_rows: Rows a part; the last may have fewer.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, images: pd.Series[str], part_rows: int
    ) -> None:
        self._directory, self._schema = directory, schema
        self._images = images.tolist()
        self._part_rows = part_rows

    def unfinished(self) -> Iterator[range]:
        """Yield the rows of each part that is not there, or not intact."""
        for rows in self._parts():
            if not self._is_finished(rows):
                yield rows

    def write(self, rows: range, table: pa.Table) -> None:
        """Keep a finished part; it appears whole or not at all."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(rows)
        partial = path.with_suffix(".partial")
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        partial.replace(path)

    def concatenate(self, path: Path) -> None:
        """Write all parts as one file, a row group each, one at a time in memory."""
        with pq.ParquetWriter(path, self._schema, compression="zstd") as writer:
            for rows in self._parts():
                writer.write_table(self._read(rows))

    def means(self, columns: list[str]) -> dict[str, float]:
        """Return the mean of some columns over all parts."""
        sums = dict.fromkeys(columns, 0.0)
        for rows in self._parts():
            table = self._read(rows)
            for column in columns:
                sums[column] += pc.sum(table[column].cast(pa.float64())).as_py()
        return {column: total / len(self._images) for column, total in sums.items()}

    def _parts(self) -> Iterator[range]:
        for start in range(0, len(self._images), self._part_rows):
            yield range(start, min(start + self._part_rows, len(self._images)))

    def _path(self, rows: range) -> Path:
        return self._directory / f"{rows.start:09d}.parquet"

    def _read(self, rows: range) -> pa.Table:
        return pq.read_table(self._path(rows), page_checksum_verification=True)

    def _is_finished(self, rows: range) -> bool:
        try:
            table = self._read(rows)
        except (OSError, pa.ArrowException):
            return False
        names = self._images[rows.start : rows.stop]
        return bool(table.schema.equals(self._schema)) and table["image"].to_pylist() == names
