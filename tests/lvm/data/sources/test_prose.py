"""Of Markdown, HTML and reStructuredText the prose is kept, and nothing of it is lost."""

from lvm.data.sources.prose import html_text, markdown_text, restructured_text
from tests.support.reading import left_out


def test_markdown_keeps_prose_in_order_and_drops_code_blocks_and_marks():
    text = "# One\n\nTwo **three**\nfour [five](https://example.org).\n\n- six\n- seven\n\n```\ncode()\n```\n\n> eight\n"
    assert markdown_text(text) == "One\n\nTwo three four five.\n\nsix\n\nseven\n\neight"


def test_hard_line_break_in_markdown_keeps_its_words_apart():
    assert markdown_text("first line  \nsecond line\\\nthird<br>fourth") == "first line second line third fourth"


def test_front_matter_is_no_text_and_a_rule_is_no_front_matter():
    assert markdown_text("---\ntitle: Notes\ntags: [a]\n---\n\nThe text.") == "The text."
    assert markdown_text("The text.\n\n---\n\nMore text.") == "The text.\n\nMore text."


def test_table_of_markdown_is_a_line_a_row():
    assert markdown_text("| year | cost |\n|---|---|\n| 1901 | *20* |\n| 1902 | |\n") == "year, cost\n1901, 20\n1902"


def test_html_in_markdown_is_read_as_html():
    text = "<details>\n<summary>More</summary>\nThe heron waits.\n</details>\n\nH<sub>2</sub>O is *wet*.\n\n<script>\nno()\n</script>\n"
    assert markdown_text(text) == "More\nThe heron waits.\n\nH2O is wet."


def test_footnotes_and_tasks_of_markdown_keep_their_words_only():
    text = "A fact[^1].\n\n- [ ] first task\n- [x] second\n\n[^1]: The source."
    assert markdown_text(text) == "A fact.\n\nfirst task\n\nsecond\n\nThe source."


def test_deeply_nested_markdown_is_kept():
    assert markdown_text("> " * 60 + "deep") == "deep"


def test_html_keeps_the_words_of_the_page_a_block_a_line():
    page = (
        "<!DOCTYPE html><html><head><title>Bridge</title><style>p {}</style><script>no()</script></head><body><!-- no -->"
        "<h1>The <em>bridge</em></h1><p>Old &amp; strong,<br>twice repaired.</p><ul><li>one<li>two</ul>"
        "<table><tr><td>1901</td><td>20</td></tr><tr><td>1902<td>35</table><section>Last</section></body></html>"
    )
    lines = [line for line in html_text(page).splitlines() if line]
    assert lines == ["Bridge", "The bridge", "Old & strong,", "twice repaired.", "one", "two", "1901 20", "1902 35", "Last"]


def test_html_that_is_broken_or_deep_is_read():
    assert html_text("<p>a<p>b</i><div>c") == "a\n\nb\n\nc"
    assert html_text("<div>" * 1000 + "deep" + "</div>" * 1000) == "deep"
    assert [html_text(text) for text in ("", " ", "<!--", "\0", "<")] == ["", "", "", "", "<"]


def test_restructured_text_keeps_prose_without_marks_code_and_included_files(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("never read")
    text = (
        "Title\n=====\n\n:Author: me\n\nPara *one* with ``name``.\nSecond line.\n\n.. note:: A note.\n\n::\n\n   code()\n\n- item\n\n"
        f"==== ====\na    b\n==== ====\n1    2\n==== ====\n\n.. include:: {secret}\n\n.. comment\n"
    )
    assert restructured_text(text) == "Title\n\nPara one with name. Second line.\n\nA note.\n\nitem\n\na, b\n1, 2"


def test_document_whose_parser_fails_is_skipped_with_the_reason(tmp_path, monkeypatch):
    def failing(text):
        raise RecursionError

    (tmp_path / "a.rst").write_text("Text.")
    monkeypatch.setattr("docutils.core.publish_doctree", lambda *_, **__: failing(""))
    assert left_out(tmp_path) == [("a.rst", "no .rst that its parser can read: RecursionError")]
