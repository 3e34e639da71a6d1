"""A log that nobody drains: one entry a key is enough."""

from __future__ import annotations

import psycopg

from vectorizer import Vectorizer
from vectorizer.testing import FakeEmbedder


def test_a_neglected_log_shrinks_to_one_entry_a_key_and_loses_none(vectorizer_url: str) -> None:
    with (
        psycopg.connect(vectorizer_url, autocommit=True) as db,
        Vectorizer(
            vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body"
        ) as vectorizer,
    ):
        db.execute("create table post (a int, b text, body text, primary key (b, a))")
        db.execute("insert into post select i, 'x', 'text' from generate_series(1, 20) i")
        vectorizer.install()
        vectorizer.run()
        vectorizer.pause()
        for number in range(5):
            db.execute("update post set body = %s", [f"text {number}"])
        db.execute("delete from post where a = 20")
        assert vectorizer.status()["waiting"] == 101
        assert db.execute("select vectorizer.collapse('post')").fetchone() == (81,)
        assert vectorizer.status()["waiting"] == 20
        assert db.execute("select vectorizer.collapse('post')").fetchone() == (0,)
        vectorizer.resume()
        assert vectorizer.run().rows == 20
        assert vectorizer.verify().ok
        texts = db.execute("select distinct contents from post_embedding").fetchall()
        assert texts == [("text 4",)]


def test_the_marker_of_a_truncate_stays(vectorizer_url: str) -> None:
    with (
        psycopg.connect(vectorizer_url, autocommit=True) as db,
        Vectorizer(
            vectorizer_url, "post", embedder=FakeEmbedder(), chunk_column="body"
        ) as vectorizer,
    ):
        db.execute("create table post (id int primary key, body text)")
        db.execute("insert into post values (1, 'one')")
        vectorizer.install()
        vectorizer.run()
        db.execute("truncate post")
        db.execute("truncate post")
        db.execute("select vectorizer.collapse('post')")
        vectorizer.run()
        assert db.execute("select count(*) from post_embedding").fetchone() == (0,)
