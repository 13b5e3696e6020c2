"""Limits of a file that somebody has uploaded, beside the size of the upload."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from shared.cli.errors import UserError

_BLOCK = 1 << 20  # bytes that are unpacked at a time
_BATCH_ROWS = 64  # of Parquet: few, since each can hold a long text


def check_unpacked_size(path: Path, max_megabytes: int) -> None:
    """Refuse a ``.gz``, Excel or Parquet file that holds much more than its size.

    A file of a megabyte can unpack to a gigabyte. What a damaged file holds is not known; whoever
    reads it says that it is damaged.

    Parameters
    ----------
    path : Path
    max_megabytes : int
        Megabytes (10^6 bytes) that it may hold: of Parquet, in memory.

    Raises
    ------
    UserError
        If it holds more.
    """
    most, name = max_megabytes * 10**6, path.name.lower()
    size = 0
    if name.endswith(".parquet"):
        size = _parquet_size(path, most)
    elif name.endswith(".xlsx"):
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as file:
            size = sum(part.file_size for part in file.infolist())
    elif name.endswith(".gz"):
        with suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
            while size <= most and (block := file.read(_BLOCK)):
                size += len(block)
    if size > most:
        raise UserError(f"{path.name}: unpacks to more than {max_megabytes:,} MB; split it")


def _parquet_size(path: Path, most: int) -> int:
    """Return the bytes of a Parquet file; of one with more than `most`, some number above it."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    size = 0
    with suppress(pa.ArrowException, OSError), ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        if (unpacked := sum(group.total_byte_size for group in groups)) > most:
            return unpacked
        # A text of the dictionary of a column counts once there, but may be that of many rows.
        for batch in file.iter_batches(_BATCH_ROWS):
            size += batch.nbytes
            if size > most:
                break
    return size
