"""What a migration did."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Migrated:
    """A dataset, a model or a decoder of the present format."""

    path: Path
    """Its folder, links resolved."""

    kind: str
    """'dataset', 'model' or 'decoder'."""

    done: tuple[str, ...]
    """What was changed, a sentence each; empty when all was of the present format already."""

    kept: Path | None = None
    """Where the old folder is, if it was replaced."""
