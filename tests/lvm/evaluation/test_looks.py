"""Whoever evaluates a model on test documents is counted: once a configuration, however often it is repeated."""

import errno
import json
import logging
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvm.atomic_io import digest_json
from lvm.config import ChunkerConfig, train_config
from lvm.data.dataset import Dataset
from lvm.data.encoders import Encoder
from lvm.data.extract import make_chunker
from lvm.errors import InputError
from lvm.evaluation import looks as module
from lvm.evaluation.looks import Look, Looks, count_look, count_model, documents_digest, looks_file, of_model, read_looks
from lvm.models.checkpoint import CheckpointConfig
from tests.support.edited import edit_json
from tests.support.in_memory import Given, in_memory

DOCUMENTS: list[Given] = [
    ("a", "train", ["One.", "Two."]),
    ("b", "test", ["Three is a crowd.", "Four."]),
    ("c", "val", ["Five.", "Six."]),
    ("d", "test", ["Seven.", "Eight, nine.", "Ten."]),
]


@pytest.fixture()
def data(tmp_path: Path) -> Dataset:
    return in_memory(DOCUMENTS, tmp_path / "data" / "dataset")


def model(*settings: str, weights: str = "w", dataset_digest: str = "d") -> CheckpointConfig:
    """What `config.json` of a trained model says."""
    train = train_config("lstm", 8, settings)
    told = {"best": {}, "history": [], "parameters": 1, "code_version": "0", "recipe": in_memory(DOCUMENTS, Path()).manifest.recipe}
    return CheckpointConfig(format=0, arch="lstm", train=train, dataset_digest=dataset_digest, files={"model.safetensors": weights}, **told)  # type: ignore[arg-type]


def counted(data: Dataset) -> list[Look]:
    return list(read_looks(data).configurations.values())


# What counts


def test_a_look_says_what_looked_and_when(data: Dataset) -> None:
    count_model(data, "test", model(), 8)
    (look,) = counted(data)
    assert (look.name, look.times) == ("lstm", 1)
    assert look.configuration == {"settings": digest_json(model().train.model_dump()), "dataset": "d", "weights": "w", "context_length": 8}
    assert look.first == look.last and look.first.endswith("+00:00")
    assert read_looks(data).documents == 2
    assert looks_file(data) == data.path.parent / "looks" / f"{documents_digest(data)}.json"


def test_the_same_configuration_again_is_no_further_look(data: Dataset) -> None:
    count_model(data, "test", model(), 8)
    time = "2026-01-01T00:00:00+00:00"
    edit_json(looks_file(data), lambda old: [look.update(first=time, last=time) for look in old["configurations"].values()])
    count_model(data, "test", model(), 8)
    (look,) = counted(data)
    assert look.times == 2 and look.first.startswith("2026-01-01") and not look.last.startswith("2026-01-01")


@pytest.mark.parametrize(
    ("other", "length"),
    [
        (model(), 5),
        (model("seed=1"), 8),
        (model("model.dropout=0.1"), 8),
        (model(weights="other"), 8),
        (model(dataset_digest="other"), 8),
    ],
    ids=["context", "seed", "setting", "weights", "dataset"],
)
def test_another_context_setting_dataset_or_training_is_a_look_of_its_own(data: Dataset, other: CheckpointConfig, length: int) -> None:
    count_model(data, "test", model(), 8)
    assert not read_looks(data).counts(of_model(other, length))
    count_model(data, "test", other, length)
    assert [look.times for look in counted(data)] == [1, 1]
    assert read_looks(data).counts(of_model(model(), 8)) and read_looks(data).counts(of_model(other, length))


def test_what_is_no_model_is_counted_by_whatever_tells_it_from_others(data: Dataset) -> None:
    for search in ("1,1,1", "5,2,4", "5,2,4"):
        count_look(data, "test", "decoder", {"weights": "w", "search": search})
    assert {look.configuration["search"]: (look.name, look.times) for look in counted(data)} == {
        "1,1,1": ("decoder", 1),
        "5,2,4": ("decoder", 2),
    }


@pytest.mark.parametrize("split", ["val", "all"])
def test_documents_that_are_not_for_testing_are_not_counted(data: Dataset, split: str) -> None:
    count_model(data, split, model(), 8)
    assert read_looks(data).configurations == {} and not (data.path.parent / "looks").exists()


def test_datasets_of_one_folder_share_the_count_for_the_same_test_documents(data: Dataset, tmp_path: Path) -> None:
    narrow = np.eye(9, 4, dtype=np.float32) + 1
    other_encoder = in_memory(DOCUMENTS, tmp_path / "data" / "another", narrow, digest="1")
    count_model(data, "test", model(), 8)
    count_model(other_encoder, "test", model(weights="other"), 8)
    assert len(counted(data)) == len(counted(other_encoder)) == 2


def test_a_dataset_is_found_by_whatever_path_leads_to_it(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.path.mkdir(parents=True)
    count_model(data, "test", model(), 8)
    monkeypatch.chdir(data.path)
    (tmp_path / "link").symlink_to(data.path)
    for path in (Path(), tmp_path / "link"):
        assert len(counted(in_memory(DOCUMENTS, path))) == 1


# Which documents


def digest_of(documents: list[Given]) -> str:
    return documents_digest(in_memory(documents, Path("nowhere")))


def replaced(number: int, doc_id: str, split: str, *texts: str) -> list[Given]:
    return [*DOCUMENTS[:number], (doc_id, split, texts), *DOCUMENTS[number + 1 :]]


@pytest.mark.parametrize(
    "same",
    [
        replaced(1, "b", "test", "Three is", "a crowd. Four."),
        replaced(1, "b", "test", "Three  is a\tcrowd.\n", "Four."),
        replaced(0, "a", "val", "Other training text."),
        DOCUMENTS[::-1],
        DOCUMENTS[1::2],
    ],
    ids=["cut elsewhere", "white space", "other splits", "order", "only these"],
)
def test_the_digest_is_that_of_the_documents_however_they_are_cut(same: list[Given]) -> None:
    assert digest_of(same) == digest_of(DOCUMENTS)


@pytest.mark.parametrize(
    "other",
    [
        replaced(1, "b", "test", "Three is a crowd.", "Four!"),
        replaced(1, "e", "test", "Three is a crowd.", "Four."),
        replaced(1, "b", "train", "Three is a crowd.", "Four."),
        replaced(0, "a", "test", "One.", "Two."),
        replaced(1, "b", "test", "Four.", "Three is a crowd."),
        [DOCUMENTS[0], ("b", "test", DOCUMENTS[3][2]), DOCUMENTS[2], ("d", "test", DOCUMENTS[1][2])],
    ],
    ids=["text", "id", "one less", "one more", "order of the text", "texts exchanged"],
)
def test_other_documents_have_another_digest(other: list[Given]) -> None:
    assert digest_of(other) != digest_of(DOCUMENTS)


def test_documents_read_backwards_are_the_same_documents(data: Dataset) -> None:
    assert documents_digest(data.directed(True)) == documents_digest(data)


def test_no_chunker_changes_the_digest(dataset: Dataset, encoder: Encoder) -> None:
    text = "\n".join(dataset.texts(dataset.rows("test")[:120])) + "\nA  \u201cquoted\u201d\u00a0word\u2014and Stra\u00dfe, " + "x" * 90
    cut = [[c.text for c in make_chunker(ChunkerConfig(max_tokens=n), encoder)(text)] for n in (8, 64, 200)]
    assert len(cut[0]) > len(cut[1]) >= len(cut[2])
    assert len({digest_of([("a", "test", own)]) for own in cut}) == 1


# What goes wrong


def look_often(data: Dataset, weights: str) -> None:
    for _ in range(20):
        count_model(data, "test", model(weights=weights), 8)
        count_model(data, "test", model(), 8)


def test_processes_that_look_at_once_lose_no_count(data: Dataset) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=look_often, args=(data, name)) for name in ("one", "two")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert {look.configuration["weights"]: look.times for look in counted(data)} == {"one": 20, "two": 20, "w": 40}


def test_a_look_that_cannot_be_written_down_is_a_warning(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count_model(data, "test", model(), 8)

    def read_only(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(module, "write_json_with_digest", read_only)
    with caplog.at_level(logging.WARNING):
        count_model(data, "test", model(weights="other"), 8)
    (record,) = caplog.records
    told = record.getMessage()
    assert "is not counted" in told and str(looks_file(data)) in told and "Read-only file system" in told
    assert [look.configuration["weights"] for look in counted(data)] == ["w"]


def test_so_is_one_whose_folder_cannot_be_made(data: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    data.path.parent.mkdir(parents=True)
    (data.path.parent / "looks").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        count_model(data, "test", model(), 8)
    assert "is not counted" in caplog.text
    assert counted(data) == []


DAMAGED = ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "documents": 2, "configurations": {"k": {}}}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_refused_and_left_alone(data: Dataset, content: str) -> None:
    file = looks_file(data)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    for look in (lambda: count_model(data, "test", model(), 8), lambda: read_looks(data)):
        with pytest.raises(InputError):
            look()
    assert file.read_text() == content


def test_a_count_that_was_lowered_by_hand_is_refused_with_the_file_and_the_remedy(data: Dataset) -> None:
    count_model(data, "test", model(), 8)
    file = looks_file(data)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"configurations": {}}))
    with pytest.raises(InputError, match=rf"^{file}.*restore it, or move it away to count anew$"):
        read_looks(data)


# What people read


def sentence(count: int) -> str:
    look = Look(name="lstm", configuration={"weights": "w"}, first="", last="", times=1)
    return Looks(documents=2, configurations={str(i): look for i in range(count)}).sentence


def test_the_number_of_configurations_is_told() -> None:
    assert sentence(0) == "The test documents of this split were looked at by 0 configurations"
    assert sentence(1) == "The test documents of this split were looked at by 1 configuration"
    assert sentence(9) == "The test documents of this split were looked at by 9 configurations"


def test_from_ten_on_it_is_told_how_to_get_new_documents() -> None:
    assert sentence(10).startswith("The test documents of this split were looked at by 10 configurations: ")
    assert "--set splits.salt=TEXT" in sentence(10) and "train anew" in sentence(10)
