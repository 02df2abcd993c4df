"""Where a flow keeps what it makes."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Workspace(BaseModel):
    """Folders of one checkout; every path that a flow writes is below `root`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    root: Path = Path()
    """The checkout, or any folder."""

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
    def living(self) -> Path:
        """Records of the flows that run now."""
        return self.runs / "living"

    def figures(self, run_id: str) -> Path:
        """Figures of one MLflow run."""
        return self.root / "runs" / "figures" / run_id

    @property
    def champion(self) -> Path:
        """The champion: a link to one of `models/versions/`."""
        return self.root / "models" / "champion"

    @property
    def mlruns(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlruns"
