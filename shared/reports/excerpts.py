"""Texts that are shortened to be shown in a line."""

from __future__ import annotations


def headline(text: str, width: int = 90) -> str:
    """Return the first line of a text that is not blank, shortened to `width` characters."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= width else line[: width - 3] + "..."
