"""Where a flow keeps what it makes."""

from pathlib import Path
from tempfile import TemporaryFile

from pydantic import BaseModel, ConfigDict

from lvm.errors import InputError


class Workspace(BaseModel):
    """The folders of one checkout. Every path that a flow writes is below `root`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: Path = Path()
    """The checkout, or any other folder."""

    @property
    def datasets(self) -> Path:
        """Datasets, one folder each, named by content."""
        return self.root / "data"

    @property
    def runs(self) -> Path:
        """Trained models, one folder each, named by architecture and content."""
        return self.root / "runs"

    @property
    def decoders(self) -> Path:
        """Trained decoders, one folder each, named by encoder and content."""
        return self.root / "decoders"

    @property
    def champion(self) -> Path:
        """The champion: a link to one of the folders in `models/versions/`."""
        return self.root / "models" / "champion"

    @property
    def mlruns(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlruns"

    @property
    def active_flows(self) -> Path:
        """Records of the flows that are running; see tasks/active_flows.py."""
        return self.runs / "active-flows"

    def figures(self, run_id: str) -> Path:
        """Figures of one MLflow run."""
        return self.runs / "figures" / run_id

    def require_writable(self) -> None:
        """Create the folders that every flow writes to; `InputError` when one of them cannot be written."""
        for folder in (self.datasets, self.runs, self.mlruns):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise InputError(
                    f"folder {folder} cannot be written ({error.strerror}): make it writable, or give another --root"
                ) from error
