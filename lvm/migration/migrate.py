"""One way in for everything that has a format: the folder says what it is."""

from pathlib import Path

import torch

from lvm.atomic_io import DIGEST_FIELD, read_json, write_json_with_digest
from lvm.data import manifest
from lvm.data.dataset import open_dataset
from lvm.data.derived import outdated_files
from lvm.data.manifest import write_manifest
from lvm.decoding.inverter.folder import load_decoder_folder
from lvm.errors import InputError
from lvm.migration.model import migrate_model
from lvm.migration.result import Migrated

CONFIG = "config.json"


def migrate(path: Path, dataset: Path | None, device: torch.device) -> Migrated:
    """Bring the dataset, model or decoder at `path` to the present format. `dataset` is the one that a model was trained on.

    What is of the present format is verified and left as it is. Raises `InputError` when `path` is nothing of the kind, when a file was
    altered, when the format is unknown, or when a model needs another `dataset`; and `GateRefused` when a migrated model would make other
    predictions.
    """
    path = path.resolve()
    if (path / manifest.FILE).is_file():
        return _migrate_dataset(path)
    if not (path / CONFIG).is_file():
        raise InputError(f"{path} holds neither {manifest.FILE} nor {CONFIG}: give the folder of a dataset, a model or a decoder")
    values = read_json(path / CONFIG, "restore it from a copy")
    if not isinstance(values, dict):
        raise InputError(f"{path / CONFIG} holds no object: restore it from a copy")
    return _migrate_decoder(path, device) if "held_out" in values else migrate_model(path, values, dataset, device)


def _migrate_dataset(path: Path) -> Migrated:
    """Verify a dataset, add the digest of its manifest, and delete what older versions derived. Shards and the dataset's digest stay."""
    dataset, done = open_dataset(path), []
    if DIGEST_FIELD not in read_json(path / manifest.FILE, manifest.REMEDY):
        write_manifest(path, dataset.manifest)
        done.append(f"{manifest.FILE} holds the digest of its fields")
    outdated = outdated_files(path / "derived", dataset.manifest.digest)
    if outdated:
        size = sum(file.stat().st_size for file in outdated)
        for file in outdated:
            file.unlink()
        done.append(f"{len(outdated)} derived files that this version does not read were deleted ({size / 1e6:.1f} MB)")
    return Migrated(path, "dataset", tuple(done))


def _migrate_decoder(path: Path, device: torch.device) -> Migrated:
    """Verify a decoder and add the digest of its configuration."""
    config = load_decoder_folder(path, device).config
    if DIGEST_FIELD in read_json(path / CONFIG, "train the decoder again"):
        return Migrated(path, "decoder", ())
    write_json_with_digest(path / CONFIG, config.model_dump())
    return Migrated(path, "decoder", (f"{CONFIG} holds the digest of its fields",))
