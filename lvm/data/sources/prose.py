"""The prose of files that hold one document: plain text, Markdown, HTML, reStructuredText. Code is left out.

A heading, a paragraph and a list item are a block each, with an empty line between them; a table has a line for each row.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lvm.data.sources.optional import needed

NESTING = 100
"""Markdown's lists and quotations within each other. The library's own limit, 20, drops what is deeper without a word."""


LINES = {"address", "caption", "option", "section", "summary"}
"""HTML elements that stand on a line of their own, besides those that html-text knows."""


def plain_text(text: str) -> str:
    """The text as it is."""
    return text


def markdown_text(text: str) -> str:
    """The prose of a Markdown document: without front matter and code; of HTML in it, the text."""
    markdown_it = needed("markdown_it", "a Markdown file")
    parser = markdown_it.MarkdownIt("commonmark", {"maxNesting": NESTING}).enable("table")
    for name in ("front_matter", "footnote", "tasklists"):
        parser.use(getattr(needed(f"mdit_py_plugins.{name}", "a Markdown file"), f"{name}_plugin"))
    return "\n\n".join(block for block in _markdown_blocks(parser.parse(text)) if block)


def _markdown_blocks(tokens: Sequence[Any]) -> Iterator[str]:
    rows: list[str] = []
    cells: list[str] | None = None
    for token in tokens:
        if token.type == "tr_open":
            cells = []
        elif token.type == "tr_close":
            rows.append(", ".join(cell for cell in cells or [] if cell))
            cells = None
        elif token.type == "table_close":
            yield "\n".join(row for row in rows if row)
            rows = []
        elif token.type == "html_block":
            yield html_text(token.content)
        elif token.type == "inline":
            content = "".join(_inline(child) for child in token.children or []).strip()
            if cells is None:
                yield content
            else:
                cells.append(content)


def _inline(token: Any) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return " "
    if token.type == "html_inline":
        return " " if token.content.lower().startswith("<br") else ""
    return str(token.content)


def html_text(text: str) -> str:
    """The text of an HTML document or fragment, without scripts, styles and comments."""
    reader = needed("html_text", "HTML")
    from lxml import etree
    from lxml.html import HTMLParser

    # By default the parser drops what is nested more than 256 deep, without a word.
    parser = HTMLParser(encoding="utf-8", huge_tree=True)
    tree = etree.fromstring(text.replace("\0", "").strip().encode() or b"<html/>", parser)
    return "" if tree is None else str(reader.extract_text(tree, newline_tags=reader.NEWLINE_TAGS | LINES))


def restructured_text(text: str) -> str:
    """The prose of a reStructuredText document. A directive that docutils does not know is treated as code.

    Files that the document includes are not read.
    """
    core = needed("docutils.core", "a .rst file")
    options = {"report_level": 5, "halt_level": 5, "file_insertion_enabled": False, "raw_enabled": False, "_disable_config": True}
    tree = core.publish_doctree(text, settings_overrides=options | {"warning_stream": io.StringIO(), "input_encoding": "unicode"})
    return "\n\n".join(block for block in _restructured_blocks(tree) if block)


def _restructured_blocks(node: Any) -> Iterator[str]:
    from docutils import nodes

    code = (nodes.literal_block, nodes.doctest_block, nodes.math_block, nodes.raw, nodes.comment, nodes.system_message)
    for child in node.children:
        if isinstance(child, (*code, nodes.docinfo, nodes.substitution_definition, nodes.target, nodes.pending)):
            continue
        if isinstance(child, nodes.table):
            yield "\n".join(", ".join(" ".join(cell.astext().split()) for cell in row.children) for row in child.findall(nodes.row))
        elif isinstance(child, nodes.TextElement):
            yield " ".join(child.astext().split())
        else:
            yield from _restructured_blocks(child)


PROSE: dict[str, Callable[[str], str]] = {
    ".txt": plain_text,
    ".text": plain_text,
    ".md": markdown_text,
    ".markdown": markdown_text,
    ".rst": restructured_text,
    ".html": html_text,
    ".htm": html_text,
    ".xhtml": html_text,
}
"""What makes the prose of a file, by its suffix in lower case."""
