"""HTML as text: headings, paragraphs, lists and tables stay apart, everything else goes.

Headings come out as in Markdown, so that a text can be cut before them.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

__all__ = ["html_to_text"]

# Contents that nobody reads. `template`, `noscript` and `iframe` hold markup for other occasions.
_HIDDEN = frozenset(
    {"script", "style", "head", "template", "noscript", "iframe", "svg", "math", "object"}
)
_HEADINGS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)}
_MARKS = {**_HEADINGS, "li": "- "}
_PARAGRAPHS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "center", "details", "dialog",
     "div", "dl", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html",
     "legend", "main", "menu", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody",
     "tfoot", "thead", "ul"}
)  # fmt: skip
_LINES = frozenset({"br", "dd", "dt", "li", "option", "tr"})
_CELLS = frozenset({"td", "th"})

_SPACE = re.compile(r"[ \t\r\n\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")


def html_to_text(html: str) -> str:
    """Return the text of an HTML document or fragment, however malformed it is.

    Paragraphs are set apart by blank lines, headings are marked with `#`, items of a list with
    `-`, cells of a table by `|`; white space counts in `pre` alone. Scripts, styles, comments and
    the head are left out; of an image its `alt` stays.
    """
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.text()


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._hidden: list[str] = []
        self._preformatted = 0
        self._at_start = True  # of a line: white space counts nothing there

    def text(self) -> str:
        lines = (line.rstrip() for line in "".join(self._parts).split("\n"))
        return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.append(tag)
            return
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag == "img":
            self.handle_data(dict(attrs).get("alt") or "")
        else:
            self._separate(tag)
            self._preformatted += tag == "pre"
            if tag in _CELLS and not self._at_start:
                self._put(" | ")
            elif tag in _MARKS:
                self._put(_MARKS[tag])

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        self._separate(tag)
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._preformatted:
            self._put(data)
            return
        text = _SPACE.sub(" ", data)
        self._put(text.lstrip(" ") if self._at_start else text)

    def _separate(self, tag: str) -> None:
        if tag in _PARAGRAPHS or tag in _HEADINGS:
            self._break("\n\n")
        elif tag in _LINES:
            self._break("\n")

    def _break(self, lines: str) -> None:
        if self._parts and self._parts[-1] in _MARKS.values():
            return  # <li><p>: the mark stays before its text
        self._parts.append(lines)
        self._at_start = True

    def _put(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self._at_start = text[-1] in " \n"
