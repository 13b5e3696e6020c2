"""Requests to a web service: its address, the secret that it wants, the pause that it asks for."""

from __future__ import annotations

import math
import os
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from shared.cli.errors import UserError


def check_url(url: str, flag: str, *, example: str, secret: str) -> None:
    """Check the base of an API that a flag names.

    Parameters
    ----------
    url : str
    flag : str
        Its name, with the dashes.
    example : str
        A URL as it should be, for the message.
    secret : str
        How the key is given, for the message.

    Raises
    ------
    UserError
        If it is no URL, or holds a user name or password, which would be printed.
    """
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_password, _ = parts.username is not None, parts.port
    except ValueError:
        raise UserError(f"{flag}: not a URL, such as {example}") from None
    if has_password:
        raise UserError(f"{flag}: holds a user name; give the key by {secret}")
    if not well_formed:
        raise UserError(f"{flag} {url}: must be a URL, such as {example}")


def read_key(variable: str) -> str | None:
    """Return the key in an environment variable; None if it is not set or empty.

    Raises
    ------
    UserError
        If it has characters that no header can have. The message does not hold it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{variable}: the key has characters that no key has; set it anew")
    return key or None


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a header ``Retry-After``, a number or a date; None without one."""
    try:
        seconds = float(value or "")
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    date = parse_date(value)
    return None if date is None else max((date - datetime.now(timezone.utc)).total_seconds(), 0.0)


def parse_date(value: str | None) -> datetime | None:
    """Return the time of a date in a header; None without one, or if it is none."""
    try:
        date = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
