"""Datasets and decoders that older versions wrote are verified and completed in place."""

import json
from pathlib import Path

import numpy as np
import pytest

from lvm.atomic_io import DIGEST_FIELD
from lvm.data.dataset import open_dataset
from lvm.data.manifest import read_manifest
from lvm.decoding.inverter.decoder import shipped
from lvm.errors import InputError
from lvm.migration.migrate import migrate
from tests.support.commands import tree
from tests.support.older_versions import CPU, TABLE, TEXT, copied


@pytest.mark.parametrize("name", [TABLE, TEXT])
def test_dataset_of_an_older_version_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    before = tree(path)
    dataset = open_dataset(path)
    assert dataset.n_rows == sum(dataset.manifest.chunks.values()) and np.isfinite(dataset.vectors).all()
    assert before.items() <= tree(path).items(), "only derived files are added"


def test_migrated_dataset_has_a_digest_in_its_manifest_and_is_the_same(tmp_path: Path) -> None:
    path = copied(TABLE, tmp_path)
    before, shards = read_manifest(path), tree(path)["chunks-00000.parquet"]
    found = migrate(path, None, CPU)
    assert (found.path, found.kind, found.kept) == (path, "dataset", None)
    assert found.done == ("manifest.json holds the digest of its fields",)
    assert DIGEST_FIELD in json.loads((path / "manifest.json").read_text())
    assert read_manifest(path) == before and tree(path)["chunks-00000.parquet"] == shards


def test_what_older_versions_derived_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    path = copied(TABLE, tmp_path)
    open_dataset(path)
    present = tree(path / "derived")
    for name in ("33c78a067aaf-v1-vectors.f32", "33c78a067aaf-v2-reverse-leaked-val.npy", "0123456789ab-v3-vectors.f32", "mine.npy"):
        (path / "derived" / name).write_bytes(b"1234")
    assert "3 derived files that this version does not read were deleted (0.0 MB)" in migrate(path, None, CPU).done
    assert tree(path / "derived").keys() == present.keys() | {"mine.npy"}


def test_migrated_dataset_is_left_alone_the_second_time(tmp_path: Path) -> None:
    path = copied(TABLE, tmp_path)
    migrate(path, None, CPU)
    before = tree(path)
    assert migrate(path, None, CPU).done == () and tree(path) == before


def test_damaged_dataset_is_refused_and_gets_no_digest(tmp_path: Path) -> None:
    path = copied(TABLE, tmp_path)
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"train": 192', '"train": 193'))
    before = tree(path)
    with pytest.raises(InputError, match=r"manifest\.json and the shards disagree on chunks"):
        migrate(path, None, CPU)
    assert before["manifest.json"] == tree(path)["manifest.json"]


def test_decoder_gets_the_digest_of_its_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "decoder"
    folder.mkdir()
    for file in shipped("minilm").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    values = json.loads((folder / "config.json").read_text())
    digest = values.pop(DIGEST_FIELD)
    (folder / "config.json").write_text(json.dumps(values))
    found = migrate(folder, None, CPU)
    assert (found.kind, found.done) == ("decoder", ("config.json holds the digest of its fields",))
    assert json.loads((folder / "config.json").read_text())[DIGEST_FIELD] == digest
    assert migrate(folder, None, CPU).done == ()


@pytest.mark.parametrize("content", [None, "[1]", "{"])
def test_folder_that_is_nothing_of_the_kind_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    told = {None: "holds neither manifest.json nor config.json", "[1]": "holds no object", "{": "is not JSON"}[content]
    with pytest.raises(InputError, match=told):
        migrate(tmp_path, None, CPU)
