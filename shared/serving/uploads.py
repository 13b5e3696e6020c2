"""Limits of a file that somebody has uploaded, beside the size of the upload."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from pathlib import Path

from shared.cli.errors import UserError

_BLOCK = 1 << 20  # bytes that are unpacked at a time


def check_unpacked_size(path: Path, max_megabytes: int) -> None:
    """Refuse a ``.gz`` or Parquet file that holds much more than its size.

    A file of a megabyte can unpack to a gigabyte. What a damaged file holds is not known; whoever
    reads it says that it is damaged.

    Parameters
    ----------
    path : Path
    max_megabytes : int
        Megabytes (10^6 bytes) that it may hold: of Parquet, the sum in its metadata.

    Raises
    ------
    UserError
        If it holds more.
    """
    most, name = max_megabytes * 10**6, path.name.lower()
    size = 0
    if name.endswith(".parquet"):
        size = _parquet_size(path)
    elif name.endswith(".gz"):
        with suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
            while size <= most and (block := file.read(_BLOCK)):
                size += len(block)
    if size > most:
        raise UserError(f"{path.name}: unpacks to more than {max_megabytes:,} MB; split it")


def _parquet_size(path: Path) -> int:
    import pyarrow as pa
    from pyarrow.parquet import read_metadata

    try:
        metadata = read_metadata(path)
    except (pa.ArrowException, OSError):
        return 0
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
