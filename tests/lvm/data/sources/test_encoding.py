"""Text that is not UTF-8 is recognised and counted, or left out with the place."""

import pytest

from lvm.data.sources import OtherEncoding, iter_source
from lvm.data.sources.encoding import UnknownEncodingError, decode
from tests.support.reading import ROWS, documents, json_lines, left_out, refusal

GERMAN = "Der Bär läuft über die Straße. Das Mädchen schläft natürlich längst."
RUSSIAN = "Привет, как дела? Это проверка кодировки текста, который никто не объявил."
JAPANESE = "日本語のテキストです。これは試験です。春になると川の水が増えます。"
POLISH = "Żółć i gęś. Książka leży na stole, a źrebię śpi w słońcu."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("text", [GERMAN, "Plain words, and no other ones."])
def test_every_form_of_unicode_is_read_with_or_without_a_mark(text, encoding):
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((GERMAN, "cp1252"), ("It costs £5 at the café on the corner.", "cp1252"), (POLISH, "cp1250"), (RUSSIAN, "cp1251")),
        *((RUSSIAN, "koi8_r"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp")),
    ],
)
def test_other_encodings_are_recognised(text, encoding):
    assert decode(text.encode(encoding)) == (text, encoding)


def test_declared_encoding_of_html_is_believed_where_it_fits():
    page = "<meta charset='iso-8859-2'><p>ą ę".encode("iso-8859-2")
    assert decode(page, html=True)[1] == "iso-8859-2"
    assert "ą ę" in decode(page, html=True)[0]
    assert decode("<meta charset='latin-1'><p>ą ę".encode(), html=True)[0].endswith("ą ę"), "UTF-8 is never taken for another"
    assert decode(b"<meta charset='klingon'>caf\xe9", html=True)[0].endswith("café")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("naïve café über größe".encode() + b"\xff", "broken UTF-8: at byte 26"),
        (b"\xff\xfea", "broken UTF-16: at byte 2"),
        (bytes(range(256)) * 8, "no text: in no encoding that is recognised"),
    ],
)
def test_damaged_and_binary_content_has_a_reason(content, reason):
    with pytest.raises(UnknownEncodingError, match=reason):
        decode(content)


def test_stray_nul_does_not_make_utf8_into_something_else():
    assert decode(b"text\0more\0text" * 3)[1] == "utf-8"


def test_folder_counts_what_was_recognised_and_lists_what_was_not(tmp_path):
    (tmp_path / "a.txt").write_bytes(GERMAN.encode("cp1252"))
    (tmp_path / "b.txt").write_bytes("naïve café über".encode() + b"\xff")
    (tmp_path / "c.csv").write_bytes(f"doc_id,text\nc,{GERMAN}\n".encode("utf-16"))
    assert [document.text for document in documents(tmp_path)] == [GERMAN, GERMAN]
    assert [item.encoding for item in iter_source(str(tmp_path)) if isinstance(item, OtherEncoding)] == ["cp1252", "utf-16"]
    assert left_out(tmp_path) == [("b.txt", "broken UTF-8: at byte 18")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_of_every_form_of_unicode_is_read(tmp_path, encoding):
    for name, content in {"a.jsonl": json_lines(ROWS).decode(), "b.json": "[" + json_lines(ROWS[:1]).decode() + "]"}.items():
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert documents(tmp_path / name)[0].text == ROWS[0]["text"]


def test_damaged_json_in_utf16_is_refused_by_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(ROWS).decode().encode("utf-16-le") + "{".encode("utf-16-le") + b"\x00\xd8")
    assert "broken UTF-16-LE" in refusal(tmp_path / "a.jsonl")
