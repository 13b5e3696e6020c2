"""Where the token is from, and where it is not sent."""

import pytest

from shared.cli.errors import UserError
from shared.github.token import find_token

API = "https://api.github.com"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No token, and a program gh that knows one for two hosts."""
    for name in ("GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    gh = tmp_path / "gh"
    gh.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "auth token --hostname" ] || exit 1\n'
        'case "$4" in github.com | github.team.org) echo "of-$4";; *) exit 1;; esac\n'
    )
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return gh


def test_the_environment_comes_before_the_program(monkeypatch, environment):
    for variable in ("GH_TOKEN", "GITHUB_TOKEN"):  # the second one wins
        monkeypatch.setenv(variable, f"in-{variable}")
        token = find_token(API)
        assert (token.value, token.source) == (f"in-{variable}", variable)
        assert token.value not in repr(token)


def test_the_program_is_asked_for_the_host(environment):
    assert find_token(API).value == "of-github.com"
    assert find_token("https://github.team.org/api/v3").value == "of-github.team.org"
    assert find_token("https://github.other.org/api/v3") is None
    environment.unlink()
    assert find_token(API) is None


def test_a_token_is_not_sent_unencrypted_to_another_machine(monkeypatch):
    assert find_token("http://github.other.org") is None
    monkeypatch.setenv("GH_TOKEN", "secret-token")
    for api in ("http://127.0.0.1:80", "http://localhost", "http://[::1]:80"):
        assert find_token(api) is not None
    for api in ("http://github.team.org", "http://10.0.0.1"):
        with pytest.raises(UserError, match=r"GH_TOKEN .* unencrypted") as error:
            find_token(api)
        assert "secret-token" not in str(error.value)


@pytest.mark.parametrize("value", ["se cret", "secret\\", "s'ecret", "secret\nX: 1", "sécret"])
def test_a_token_that_no_header_can_have_is_refused_and_not_shown(value, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", value)
    with pytest.raises(UserError, match=r"^GITHUB_TOKEN: ") as error:
        find_token(API)
    assert "ecret" not in str(error.value)
