"""Addresses, keys and pauses of web services."""

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from shared.cli.errors import UserError
from shared.cli.web import check_url, parse_date, read_key, retry_after

KEY = "a-key-that-nobody-may-see"


def test_keys_from_the_environment(monkeypatch):
    monkeypatch.setenv("A_KEY", f" {KEY}\n")
    assert read_key("A_KEY") == KEY
    assert read_key("NO_SUCH_KEY") is None
    monkeypatch.setenv("A_KEY", "")
    assert read_key("A_KEY") is None
    monkeypatch.setenv("A_KEY", "secret\nX-Header: 1")
    with pytest.raises(UserError, match="A_KEY") as error:
        read_key("A_KEY")
    assert "secret" not in str(error.value)


def test_a_message_about_a_url_names_the_flag_and_an_example():
    options = {"example": "https://api.example.org", "secret": "A_KEY"}
    check_url("https://host:8000/v1", "--api", **options)
    with pytest.raises(UserError, match=r"^--api host: .* such as https://api\.example\.org$"):
        check_url("host", "--api", **options)
    with pytest.raises(UserError, match=r"^--api: .*A_KEY$") as error:
        check_url("https://me:secret@host", "--api", **options)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("30", 30), ("1.5", 1.5), ("-3", 0), ("0", 0)),
        *((text, None) for text in (None, "", "soon", "nan", "inf")),
    ],
)
def test_seconds_to_wait(value, expected):
    assert retry_after(value) == expected


def test_seconds_until_a_date():
    date = datetime.now(timezone.utc) + timedelta(hours=1)
    assert 3590 < retry_after(format_datetime(date, usegmt=True)) <= 3600
    assert retry_after("Mon, 18 Dec 2017 10:40:17 GMT") == 0


def test_a_date_without_an_offset_is_utc():
    assert parse_date("Mon, 18 Dec 2017 10:40:17").tzinfo == timezone.utc
    assert parse_date("yesterday") is None
