"""Settings of the server."""

from pydantic import Field

from lvm.config.base import Config


class ServingConfig(Config):
    """How much is served at once, and how long a request may take."""

    burst: int = Field(32, ge=1)
    """Most requests for predictions in progress at once, in a burst. More are refused with 429."""

    text: int = Field(8, ge=1)
    """Most requests in progress that encode, decode or generate text; one of them is computed at a time."""

    deadline: float = Field(10.0, gt=0)
    """Seconds within which the computation of a prediction must begin. A request may ask for less with Request-Timeout."""

    watch: float | None = Field(2.0, gt=0)
    """Seconds between two looks for a newer model; null to look at SIGHUP only."""
