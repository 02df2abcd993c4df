"""Datasets and models that older versions wrote; see tests/fixtures."""

import shutil
from pathlib import Path

import torch

FIXTURES = Path(__file__).parents[1] / "fixtures"
TABLE, TEXT = "085d1e9/table-dataset", "085d1e9/dataset"
CPU = torch.device("cpu")


def copied(name: str, folder: Path) -> Path:
    """A copy below `folder` of one of them, such as '085d1e9/lstm'."""
    source = FIXTURES / name
    return Path(shutil.copytree(source, folder / source.name))
