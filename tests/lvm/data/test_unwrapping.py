"""Hard wrapping is told from lines that end for their own sake by their width, in every script."""

import json
import random
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from lvm.data.unwrapping import columns, paragraphs, paragraphs_of_version_1

CHINESE = (
    "春天来了，山谷里的雪慢慢融化，小溪又开始流动。村里的人们走出家门，在田里播种小麦和豆子。孩子们沿着河岸奔跑，看着鸭子在水面上游来游去！"
    "老人坐在门前的石凳上，谈论着去年的收成和远方的消息。谁还记得那场大水呢？那一年桥被冲走了，大家用了三个月才把它重新修好。"
    "现在新桥又高又宽，马车可以并排通过，商人从城里带来布匹、盐和书籍。傍晚的时候，炊烟从屋顶升起，狗在院子里叫，母亲们呼唤孩子回家吃饭。"
)
THAI = (
    "ฤดูใบไม้ผลิมาถึงแล้วหิมะบนภูเขาค่อยๆละลายและลำธารก็เริ่มไหลอีกครั้งชาวบ้านออกจากบ้านไปหว่านข้าวและถั่วในทุ่งนา"
    "เด็กๆวิ่งเล่นริมฝั่งแม่น้ำมองดูเป็ดว่ายน้ำไปมาคนชรานั่งอยู่หน้าประตูพูดคุยเรื่องการเก็บเกี่ยวเมื่อปีที่แล้วและข่าวจากแดนไกล"
    "ตอนนี้สะพานใหม่สูงและกว้างรถม้าสามารถผ่านไปพร้อมกันได้พ่อค้านำผ้าเกลือและหนังสือมาจากเมืองทุกเดือน"
)
ARABIC = (
    "جاء الربيع وبدأ الثلج يذوب في الوادي وعاد الجدول إلى الجريان من جديد وخرج أهل القرية من بيوتهم ليزرعوا القمح والفول في الحقول "
    "وركض الأطفال على ضفة النهر وهم ينظرون إلى البط الذي يسبح في الماء وجلس الشيوخ أمام الأبواب يتحدثون عن حصاد العام الماضي وعن أخبار "
    "البلاد البعيدة والجسر الجديد عال وعريض تمر عليه العربات ويحمل التجار القماش والملح والكتب من المدينة كل شهر"
)


@pytest.fixture(scope="module")
def addresses(small_corpus: Path) -> list[list[str]]:
    """The paragraphs of real addresses."""
    return [json.loads(line)["text"].split("\n") for line in small_corpus.read_text(encoding="utf-8").splitlines()]


def wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


@pytest.mark.parametrize("width", [60, 72, 79, 100])
def test_prose_that_was_wrapped_is_joined_to_its_paragraphs(addresses: list[list[str]], width: int) -> None:
    for found in addresses:
        expected = [" ".join(paragraph.split()) for paragraph in found]
        assert paragraphs("\n\n".join(wrapped(paragraph, width) for paragraph in expected)) == expected


def test_wrapped_text_without_upper_case_or_full_stops_is_joined_too(addresses: list[list[str]]) -> None:
    words = " ".join("".join(c for c in " ".join(addresses[0]).lower() if c.isalpha() or c == " ").split())
    assert paragraphs(wrapped(words, 72)) == [words]


def test_lower_case_line_a_sentence_stays_a_line(addresses: list[list[str]]) -> None:
    for found in addresses:
        lines = [s.lower().strip(" .,;:") for paragraph in found for s in paragraph.split(". ")]
        lines = [" ".join(line.split()) for line in lines if line]
        assert paragraphs("\n".join(lines)) == lines


@pytest.mark.parametrize(("text", "width"), [(CHINESE, 30), (CHINESE, 21), (THAI, 40), (ARABIC, 60)])
def test_scripts_without_case_are_joined_by_width_as_they_are_written(text: str, width: int) -> None:
    lines = [text[i : i + width] for i in range(0, len(text), width)]
    if text == THAI:
        lines = TextSplitter(width).chunks(text)  # between words
    elif text == ARABIC:
        lines = textwrap.wrap(text, width)
    assert paragraphs("\n".join(lines)) == [text]


def test_chinese_line_a_sentence_stays_a_line() -> None:
    lines = [s for s in CHINESE.replace("。", "\n").replace("！", "\n").replace("？", "\n").split("\n") if s]
    assert paragraphs("\n".join(lines)) == lines


@pytest.mark.parametrize(
    "lines",
    [
        [f"2026-01-{day:02} info  request {day:05} served in 12 ms by host eleven" for day in range(1, 29)],  # equally wide records
        ["Ingredients", "flour", "sugar", "eggs"],
        ["def total(values):", "return sum(values)"],
        ["Shall I compare thee to a summer’s day", "Thou art more lovely and more temperate", "Rough winds do shake the buds of May"] * 3,
        ["One sentence.", "Another one.", "and a third."],
        ["i went to Paris", "we saw the tower", "it was closed"],
    ],
)
def test_records_lists_code_and_verses_stay_lines(lines: list[str]) -> None:
    assert paragraphs("\n".join(lines)) == lines


def test_headings_and_last_lines_of_paragraphs_without_empty_lines_between_are_kept_apart(addresses: list[list[str]]) -> None:
    long = [" ".join(paragraph.split()) for paragraph in addresses[3] if len(paragraph) > 300]
    long = [paragraph for paragraph in long if len(wrapped(paragraph, 72).split("\n")[-1]) < 60]  # a full last line seems to go on
    assert len(long) > 3
    text = "\n".join(f"Part {number}\n{wrapped(paragraph, 72)}" for number, paragraph in enumerate(long))
    assert paragraphs(text) == [line for number, paragraph in enumerate(long) for line in (f"Part {number}", paragraph)]


def test_uneven_widths_are_recognised(addresses: list[list[str]]) -> None:
    rng, words, lines = random.Random(0), " ".join(addresses[1]).split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 70 + rng.randint(-3, 3):
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    assert paragraphs("\n".join(lines)) == [" ".join(words)]


def test_short_text_is_joined_where_a_block_is_prose() -> None:
    wrapped = "Title\n\nThe first paragraph goes on\nover three lines that\nwere wrapped.\n\nA second one\nlikewise."
    assert paragraphs(wrapped) == ["Title", "The first paragraph goes on over three lines that were wrapped.", "A second one likewise."]
    assert paragraphs("Title\n \t\nThe paragraph\ngoes on\nand on.") == ["Title", "The paragraph goes on and on."]


@given(st.text(st.sampled_from("aB .。中ก\n\r"), max_size=60))
def test_line_endings_of_windows_change_nothing_and_no_character_is_lost(text: str) -> None:
    unix = text.replace("\r\n", "\n")
    assert paragraphs(unix.replace("\n", "\r\n")) == paragraphs(unix)
    assert "".join("".join(paragraphs(text)).split()) == "".join(text.split())


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert [columns(line) for line in ("peace", "和平", "한국", "ที่", "é", "e\u0301")] == [5, 4, 4, 1, 1, 1]


def test_both_versions_agree_on_text_that_is_not_wrapped(addresses: list[list[str]]) -> None:
    assert all(paragraphs("\n".join(found)) == paragraphs_of_version_1("\n".join(found)) == found for found in addresses)
