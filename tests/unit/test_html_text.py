from __future__ import annotations

import random

import pytest

from vectorizer.chunking import Chunker
from vectorizer.html_text import html_to_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain text", "plain text"),
        ("a &amp; b &lt;c&gt; &eacute;&#233; &nbsp;x", "a & b <c> éé \u00a0x"),
        ("<p>One\n  line</p><p>another</p>", "One line\n\nanother"),
        ("<p>a <b>bold</b> word, <i>it</i>alic</p>", "a bold word, italic"),
        ("<h1>Title</h1>text<h3>Sub</h3>more", "# Title\n\ntext\n\n### Sub\n\nmore"),
        ("<ul><li>one</li><li><p>two</p></li></ul>", "- one\n\n- two"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<pre>  x = 1\n\n  y</pre>", "x = 1\n\n  y"),
        (
            "<table><tr><th>n</th><th>m</th></tr><tr><td>1</td><td>2</td></tr></table>",
            "n | m\n\n1 | 2",
        ),
        ("<head><title>t</title></head><body>b</body>", "b"),
        ("a<script>if (x < 1) { '</p>' }</script>b<style>p {}</style>c", "abc"),
        ("<svg><svg>x</svg>y</svg>z", "z"),
        ("<!-- no --><p>yes</p><![CDATA[no]]>", "yes"),
        ('see <img src="cat.png" alt="a cat"> here', "see a cat here"),
        ("<div/>a<div>b", "a\n\nb"),
        ("</p></div>a < b", "a < b"),
        ("", ""),
        ("<p> </p>\n<div></div>", ""),
    ],
)
def test_text_of_html(html: str, text: str) -> None:
    found = html_to_text(html)
    assert found.replace("\n\n", "\n") == text.replace("\n\n", "\n")


def test_what_is_broken_is_read_all_the_same() -> None:
    chance = random.Random(7)  # noqa: S311 - the same in every run
    pieces = ["<p>", "</p", "<li", ">", "<div>" * 50, "</div>", "<script>", "</script>", "&#x",
              "a <", "<!--", "-->", "<td>", "word ", '<a href="', "\0", "<pre>", "é"]  # fmt: skip
    for _ in range(300):
        html_to_text("".join(chance.choices(pieces, k=60)))


def test_deep_and_long_html() -> None:
    assert html_to_text("<div>" * 100_000 + "x") == "x"
    assert len(html_to_text("<p>some words</p>" * 100_000)) == 100_000 * 12 - 2


BODY = "Cats purr at any hour of the day, and nobody has ever found out why they do so. " * 4


def test_html_is_cut_at_its_headings() -> None:
    html = f"<h1>Cats</h1><p>{BODY}</p><h2>Dogs</h2><p>{BODY}</p>"
    chunks = Chunker(splitter="html").split(html)
    assert [chunk[:7] for chunk in chunks] == ["# Cats\n", "## Dogs"]
    assert Chunker(splitter="html").split("<p> </p>") == []
