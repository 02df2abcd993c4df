"""`lvm serve` refuses what it cannot serve, in one sentence with the remedy, and loads nothing heavy before it must."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lvm.cli.serve import serve
from lvm.data.dataset import Dataset
from lvm.errors import InputError
from lvm.serving import process
from tests.support.trainings import trained

listens = pytest.mark.allow_hosts(["127.0.0.1"])
"""A test that opens a port of this machine."""


@pytest.fixture(scope="module")
def model_folder(dataset: Dataset) -> Path:
    """A small trained model."""
    return trained(dataset)


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would direct the logs of this process to standard error."""
    monkeypatch.setattr(process, "_log_as_json", lambda: None)


@pytest.fixture()
def altered(model_folder: Path, tmp_path: Path) -> Path:
    """A model that has lost its golden predictions."""
    copy = Path(shutil.copytree(model_folder, tmp_path / "model", ignore=shutil.ignore_patterns("training")))
    (copy / "golden.safetensors").write_bytes(b"")
    return copy


@listens
def test_model_that_is_not_there_or_altered_is_refused(altered: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"option --model .*none: has no config\.json"):
        serve([tmp_path / "none"], port=0)
    with pytest.raises(InputError, match=r"golden\.safetensors is missing, truncated or altered"):
        serve([altered], port=0)


@listens
def test_dataset_or_decoder_that_is_not_there_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a dataset and contains none with the digest"):
        serve([model_folder], data=tmp_path, port=0)
    with pytest.raises(InputError, match="nowhere"):
        serve([model_folder], decoder=str(tmp_path / "nowhere"), port=0)


@listens
def test_port_that_is_taken_is_refused(model_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is not available"):
            serve([model_folder], port=port)


def test_host_that_others_can_reach_needs_a_key(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LVM_API_KEY", raising=False)
    with pytest.raises(InputError, match=r"option --host 0\.0\.0\.0: .* a key is required: set LVM_API_KEY"):
        serve([model_folder], host="0.0.0.0", port=0)


def test_unknown_setting_is_refused(model_folder: Path) -> None:
    with pytest.raises(InputError, match="brust"):
        serve([model_folder], port=0, setting=["serving.brust=3"])


def test_application_and_clients_are_imported_without_torch() -> None:
    code = "import sys, lvm.serving, lvm.serving.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
