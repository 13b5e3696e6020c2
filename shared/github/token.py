"""The token that tells GitHub who asks: from the environment, or from GitHub's own program."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shared.cli.errors import UserError
from shared.cli.web import read_key

VARIABLES = ("GITHUB_TOKEN", "GH_TOKEN")
_TOKEN = r"[\w.~+/=-]+"  # RFC 6750
_SECONDS_TO_WAIT = 10  # for the program gh


@dataclass(frozen=True)
class Token:
    """A token and where it is from; only the latter is printed.

    Attributes
    ----------
    value : str
    source : str
        "GITHUB_TOKEN", "GH_TOKEN" or "`gh auth token`".
    """

    value: str = field(repr=False)
    source: str


def find_token(api: str) -> Token | None:
    """Return the token for a server; None without one.

    ``GITHUB_TOKEN`` comes first, then ``GH_TOKEN``, then what ``gh auth token`` prints.

    Parameters
    ----------
    api : str
        Base URL of the API.

    Raises
    ------
    UserError
        If the token has characters that no header can have, or would be sent unencrypted to
        another machine.
    """
    token = None
    for variable in VARIABLES:
        if value := read_key(variable):
            token = Token(value, variable)
            break
    parts = urlsplit(api)
    host = parts.hostname or ""
    if token is None and (
        value := _token_of_gh("github.com" if host == "api.github.com" else host)
    ):
        token = Token(value, "`gh auth token`")
    if token and not re.fullmatch(_TOKEN, token.value, re.ASCII):
        raise UserError(f"{token.source}: has characters that no token has; set it anew")
    if token and parts.scheme == "http" and not _is_this_machine(host):
        raise UserError(
            f"--api {api}: the token of {token.source} would be sent unencrypted; name an https "
            "address, or unset the token"
        )
    return token


def _token_of_gh(host: str) -> str | None:
    """Return what GitHub's program prints; None if it is not installed, or not logged in."""
    host = "github.com" if host == "api.github.com" else host
    command = ["gh", "auth", "token", "--hostname", host]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_WAIT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
