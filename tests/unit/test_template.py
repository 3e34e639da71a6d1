from __future__ import annotations

import random
import re

import pytest

from vectorizer.errors import TemplateError
from vectorizer.template import Template

POST = "Author {author}, title: {title}, contents: {chunk}"


def test_columns_and_values() -> None:
    template = Template(POST)
    assert template.columns == ("author", "title")
    rendered = template.render({"author": "Ann", "title": "Cats", "unused": "x"}, "They purr.")
    assert rendered == "Author Ann, title: Cats, contents: They purr."


def test_the_default_is_the_chunk_alone() -> None:
    assert Template() == Template("{chunk}")
    assert Template().columns == ()
    assert Template().render({}, "text") == "text"


def test_columns_come_once_in_order_of_first_use() -> None:
    assert Template("{b}{a}{chunk}{b}{chunk}").columns == ("b", "a")


def test_null_renders_as_nothing() -> None:
    assert Template("<{a}>{chunk}").render({"a": None}, "c") == "<>c"


def test_doubled_braces_are_literal() -> None:
    template = Template("{{a}} {{{a}}} {{}}{chunk}")
    assert template.columns == ("a",)
    assert template.render({"a": "x"}, "c") == "{a} {x} {}c"


@pytest.mark.parametrize("value", ["{chunk}", "{{", "}", "{0.__class__}", "%s", "\\1", "\n"])
def test_values_are_data(value: str) -> None:
    assert Template("{a}|{chunk}").render({"a": value}, value) == f"{value}|{value}"


@pytest.mark.parametrize(
    "name", ["två ord", "タイトル", " padded ", "a-b", "Ünï(code)?", "a'b\"c", "line\nbreak", "x$1"]
)
def test_any_plain_name_is_a_column(name: str) -> None:
    template = Template(f"{{{name}}}: {{chunk}}")
    assert template.columns == (name,)
    assert template.render({name: "v"}, "c") == "v: c"


def test_a_column_called_chunk_does_not_hide_the_chunk() -> None:
    assert Template("{chunk}").render({"chunk": "column"}, "text") == "text"


@pytest.mark.parametrize(
    ("text", "offending"),
    [
        ("{a.b} {chunk}", "{a.b}, attribute access"),
        ("{a[0]} {chunk}", "{a[0]}, indexing"),
        ("{a!r} {chunk}", "{a!r}, a conversion"),
        ("{a:>10} {chunk}", "{a:>10}, a format specification"),
        ("{chunk!s}", "{chunk!s}, a conversion"),
        ("{} {chunk}", "{}, a positional field"),
        ("{0} {chunk}", "{0}, a positional field"),
        ("{chunk} }", "unpaired } at character 9"),
        ("{chunk", "unpaired { at character 1"),
        ("{a{b}} {chunk}", "unpaired { at character 1"),
        ("title: {title}", "lacks {chunk}"),
        ("{{chunk}}", "lacks {chunk}"),
        ("", "lacks {chunk}"),
    ],
)
def test_anything_else_is_refused(text: str, offending: str) -> None:
    with pytest.raises(TemplateError) as error:
        Template(text)
    assert offending in str(error.value)
    assert "allowed are column names in braces" in str(error.value)


def test_a_missing_value_is_named() -> None:
    with pytest.raises(TemplateError, match=r"names 'title', of which there is no value.*author"):
        Template(POST).render({"author": "Ann"}, "c")


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same texts in every run


def columns_in_sql(text: str) -> set[str]:
    """Do as template_columns in 0002_install.sql does."""
    found = re.findall(r"\{([^{}]*)\}", text.replace("{{", "").replace("}}", ""))
    return set(found) - {"chunk"}


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_str_format_and_with_sql(seed: int) -> None:
    chance = seeded(seed)
    pieces = ["{{", "}}", "{a}", "{b c}", "{é}", "{chunk}", "text", " ", "\n"]
    values = {"a": "1", "b c": "{2}", "é": "}3{"}
    for _ in range(200):
        text = "".join(chance.choices(pieces, k=chance.randint(0, 12))) + "{chunk}"
        template = Template(text)
        assert template.render(values, "C") == text.format(**values, chunk="C")
        assert set(template.columns) == columns_in_sql(text)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_accepted_agrees_with_sql(seed: int) -> None:
    chance = seeded(seed)
    for _ in range(500):
        text = "".join(chance.choices("{{{}}}ab.", k=chance.randint(0, 10))) + "{chunk}"
        try:
            template = Template(text)
        except TemplateError:
            continue
        assert set(template.columns) == columns_in_sql(text)
