from __future__ import annotations

import pytest

from vectorizer.rows import row_class

Post = row_class(["id", "title", "text"])
ROW = Post((7, 7, "Title", None))


def test_values_by_name_and_position() -> None:
    assert [ROW[name] for name in ("locked_id", "id", "title", "text")] == [7, 7, "Title", None]
    assert [ROW[position] for position in range(4)] == [7, 7, "Title", None]
    assert (ROW[-1], ROW[1:3]) == (None, (7, "Title"))


def test_it_is_a_tuple() -> None:
    assert ROW == (7, 7, "Title", None)
    locked_id, *_ = ROW
    assert (locked_id, len(ROW), isinstance(ROW, tuple)) == (7, 4, True)
    assert hash(ROW) == hash((7, 7, "Title", None))


def test_it_is_like_a_mapping() -> None:
    names = ["locked_id", "id", "title", "text"]
    assert list(ROW.keys()) == names
    assert list(ROW.values()) == [7, 7, "Title", None]
    assert dict(ROW.items()) == dict(ROW) == dict(zip(names, ROW, strict=True))


def test_get() -> None:
    assert (ROW.get("title"), ROW.get("text", "x"), ROW.get("nothing")) == ("Title", None, None)
    assert ROW.get("nothing", "x") == "x"


def test_what_is_not_there() -> None:
    with pytest.raises(KeyError, match="nothing"):
        ROW["nothing"]
    with pytest.raises(IndexError):
        ROW[4]


def test_rows_of_two_tables_do_not_mix() -> None:
    other = row_class(["title"])((1, "Other"))
    assert (other["title"], ROW["title"]) == ("Other", "Title")


def test_locked_id_is_the_key_also_where_a_column_has_that_name() -> None:
    row = row_class(["id", "locked_id"])((7, 7, "column"))
    assert (row["locked_id"], row[0], row[2]) == (7, 7, "column")


def test_columns_called_like_methods() -> None:
    row = row_class(["keys", "_index", "get"])((1, "a", "b", "c"))
    assert (row["keys"], row["_index"], row["get"]) == ("a", "b", "c")
    assert list(row.keys()) == ["locked_id", "keys", "_index", "get"]


def test_repr_names_the_values() -> None:
    assert repr(ROW) == "Row(locked_id=7, id=7, title='Title', text=None)"
