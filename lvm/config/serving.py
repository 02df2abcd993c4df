"""Settings of the server."""

from pydantic import Field

from lvm.config.base import Config


class ServingConfig(Config):
    """Limits of the server."""

    burst: int = Field(32, ge=1)
    """Most predictions in flight at once, in a burst. Further requests are answered with 429."""

    sustained: int = Field(5, ge=1)
    """Most predictions in flight at once under sustained load. The rest of `burst` becomes available again within a second."""

    text: int = Field(8, ge=1)
    """Most requests in flight that encode, decode or continue text. One of them is computed at a time."""

    batch: int = Field(64, ge=1)
    """Most contexts computed together, unless a single request has more."""

    deadline: float = Field(10.0, gt=0)
    """Seconds within which the computation of a prediction must begin. A request may ask for less with Request-Timeout."""

    max_body: int = Field(16, ge=1)
    """Largest request body, in MiB. Larger ones are answered with 413."""

    watch: float | None = Field(2.0, gt=0)
    """Seconds between two checks for a newer model; null to check at SIGHUP only."""

    drain: int = Field(10, ge=1)
    """Seconds in which requests in flight may finish once the server is told to stop."""
