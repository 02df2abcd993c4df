"""Whatever text comes, `lvm diagnose` gives results with remedies: one document, two-chunk documents, other scripts, few documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from lvm.config import GateThresholds
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.gates.data import data_gates
from lvm.gates.stages import stage_gates
from tests.support.commands import SMALL, lvm
from tests.support.nights import extracted

RUSSIAN = """
У лукоморья дуб зелёный; / Златая цепь на дубе том: / И днём и ночью кот учёный / Всё ходит по цепи кругом;
Идёт направо — песнь заводит, / Налево — сказку говорит. / Там чудеса: там леший бродит, / Русалка на ветвях сидит;
Там на неведомых дорожках / Следы невиданных зверей; / Избушка там на курьих ножках / Стоит без окон, без дверей;
Буря мглою небо кроет, / Вихри снежные крутя; / То, как зверь, она завоет, / То заплачет, как дитя,
То по кровле обветшалой / Вдруг соломой зашумит, / То, как путник запоздалый, / К нам в окошко застучит.
Я помню чудное мгновенье: / Передо мной явилась ты, / Как мимолётное виденье, / Как гений чистой красоты.
В томленьях грусти безнадежной, / В тревогах шумной суеты, / Звучал мне долго голос нежный / И снились милые черты.
Белеет парус одинокой / В тумане моря голубом! / Что ищет он в стране далёкой? / Что кинул он в краю родном?
Играют волны — ветер свищет, / И мачта гнётся и скрыпит; / Увы! он счастия не ищет / И не от счастия бежит!
Под ним струя светлей лазури, / Над ним луч солнца золотой. / А он, мятежный, просит бури, / Как будто в бурях есть покой!
Мороз и солнце; день чудесный! / Ещё ты дремлешь, друг прелестный — / Пора, красавица, проснись: / Открой сомкнуты негой взоры
Умом Россию не понять, / Аршином общим не измерить: / У ней особенная стать — / В Россию можно только верить.
"""
"""Pushkin, Lermontov, Tyutchev; a stanza a line."""

GREEK = """
Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ὁ λόγος ἦν πρὸς τὸν θεόν, καὶ θεὸς ἦν ὁ λόγος. / Οὗτος ἦν ἐν ἀρχῇ πρὸς τὸν θεόν. / Πάντα δι’ αὐτοῦ ἐγένετο.
Ἐν αὐτῷ ζωὴ ἦν, καὶ ἡ ζωὴ ἦν τὸ φῶς τῶν ἀνθρώπων. / Καὶ τὸ φῶς ἐν τῇ σκοτίᾳ φαίνει, καὶ ἡ σκοτία αὐτὸ οὐ κατέλαβεν.
"""
"""The Gospel of John, 1:1-5."""

HINDI = """
बुरा जो देखन मैं चला, बुरा न मिलिया कोय। / जो दिल खोजा आपना, मुझसे बुरा न कोय। / काल करे सो आज कर, आज करे सो अब। / पल में परलय होएगी, बहुरि करेगा कब।
धीरे-धीरे रे मना, धीरे सब कुछ होय। / माली सींचे सौ घड़ा, ऋतु आए फल होय। / पोथी पढ़ि पढ़ि जग मुआ, पंडित भया न कोय। / ढाई आखर प्रेम का, पढ़े सो पंडित होय।
"""
"""Kabir."""


def documents(text: str) -> dict[str, str]:
    """A document a line, its verses a line each."""
    return {f"{i}": "\n".join(line.split(" / ")) for i, line in enumerate(text.strip().splitlines())}


def sentences(dataset: Dataset, doc: int, count: int | None = None) -> str:
    """The first chunks of a document of the small corpus, a line each."""
    return "\n".join(dataset.table.column("text").to_pylist()[dataset.starts[doc] : dataset.starts[doc + 1]][:count])


def diagnosed(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """What `lvm diagnose --json` says, with the exit code that belongs to it; the table for people and both figures come too."""
    figures = dataset.path / "figures"
    finished = lvm("diagnose", dataset.path, "--json", "--figures", figures)
    gates = {gate["name"]: gate for gate in finished.json["gates"]}
    passed = all(gate["passed"] for gate in gates.values())
    assert (finished.code, finished.json["passed"]) == (0 if passed else 3, passed)
    assert "Traceback" not in finished.err
    assert gates.keys() == stage_gates("data").keys()
    assert all(gate["reason"] and bool(gate["remedy"]) == (gate["severity"] != "ok") for gate in gates.values())
    assert sorted(file.name for file in figures.iterdir()) == ["lags.png", "neighbours.png"]
    people = lvm("diagnose", dataset.path)
    assert people.code == finished.code and people.out.count(" remedy ") == sum(bool(gate["remedy"]) for gate in gates.values())
    return gates


def refused(gates: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: f"{gate['reason']}: {gate['remedy']}" for name, gate in gates.items() if not gate["passed"]}


def test_one_document_is_refused_for_want_of_others(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    found = refused(diagnosed(extracted({"only": sentences(dataset, 0)}, tmp_path, encoder)))
    assert found.keys() == {"chunk_order", "split_leakage", "pairing"}
    assert "[too few documents]" in found["chunk_order"] and "give 5 or more documents of more than 5 sentences" in found["chunk_order"]
    assert "is empty" in found["split_leakage"] and "give more documents" in found["split_leakage"]
    assert "nothing can be compared: give more documents" in found["pairing"]


def test_two_chunk_documents_are_refused_since_their_order_cannot_be_told(dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    short = {f"{doc}": sentences(dataset, doc, 2) for doc in range(len(dataset.doc_ids))}
    data = extracted(short, tmp_path, encoder)
    assert set(map(int, data.starts[1:] - data.starts[:-1])) == {2}
    assert refused(diagnosed(data))["chunk_order"] == (
        "no document has more than 5 sentences, too few to tell their order from a shuffle: give longer documents"
    )


@pytest.mark.parametrize("text", [RUSSIAN, GREEK, HINDI], ids=["Cyrillic", "Greek", "Devanagari"])
def test_text_in_another_script_is_diagnosed(text: str, encoder: Encoder, tmp_path: Path) -> None:
    data = extracted(documents(text), tmp_path, encoder)
    assert data.n_rows >= 5
    gates = diagnosed(data)
    assert gates["chunk_order"]["reason"].startswith("no document has more than 5 sentences")
    assert "no repeated key, no bad vector" in gates["duplicates"]["reason"] or "chunks were stored twice" in gates["duplicates"]["reason"]


def test_long_text_in_another_script_is_checked_by_its_order(encoder: Encoder, tmp_path: Path) -> None:
    whole = "\n".join(documents(RUSSIAN).values())
    reason = diagnosed(extracted({"poems": whole}, tmp_path, encoder))["chunk_order"]["reason"]
    assert "neighbouring sentences lead a random order by" in reason and "[too few documents]" in reason


@pytest.mark.parametrize("count", [4, 5])
def test_an_interval_is_given_from_five_documents_on(count: int, dataset: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    few = extracted({f"{doc}": sentences(dataset, doc, 20) for doc in range(count)}, tmp_path, encoder)
    (order,) = (gate for gate in data_gates(few, GateThresholds()) if gate.name == "chunk_order")
    assert ("[too few documents]" in order.reason) == (count < 5)
    assert order.passed == (count == 5)


@pytest.mark.slow
def test_model_on_too_few_documents_for_an_interval_is_told_so_and_not_that_it_is_bad(
    dataset: Dataset, encoder: Encoder, tmp_path: Path
) -> None:
    few = extracted({f"{doc}": sentences(dataset, doc, 40) for doc in range(20)}, tmp_path, encoder)
    assert len(few.docs("val")) < 5
    assert lvm("train", few.path, "--arch", "lstm", "--out", tmp_path / "lstm", *SMALL).code == 0
    finished = lvm("diagnose", few.path, "--model", tmp_path / "lstm", "--json")
    assert finished.code == 3, json.dumps(finished.json, indent=1)
    baseline = next(gate for gate in finished.json["gates"] if gate["name"] == "baselines")
    assert "[too few documents]" in baseline["reason"] and "adds nothing" not in baseline["reason"]
    assert "give more documents" in baseline["remedy"]
