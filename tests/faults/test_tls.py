"""TLS: what the URL or the environment says reaches libpq, and a refusal says what to check."""

from __future__ import annotations

import pytest
from posts import posts
from proxy import Proxy
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from vectorizer.errors import DatabaseUnavailable

CHECK = "check sslmode and sslrootcert in the database URL"


def test_a_server_without_tls_is_refused_where_tls_is_required(vectorizer_url: str) -> None:
    with (
        Proxy(vectorizer_url) as proxy,
        posts(make_conninfo(proxy.url, sslmode="require")) as vectorizer,
        pytest.raises(DatabaseUnavailable, match="server does not support SSL") as raised,
    ):
        vectorizer.install()
    assert CHECK in str(raised.value)


def test_the_environment_says_so_as_well(
    vectorizer_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    with Proxy(vectorizer_url) as proxy:
        parts = conninfo_to_dict(proxy.url)
        parts.pop("sslmode", None)
        with (
            posts(make_conninfo(**parts)) as vectorizer,
            pytest.raises(DatabaseUnavailable, match="server does not support SSL"),
        ):
            vectorizer.install()
