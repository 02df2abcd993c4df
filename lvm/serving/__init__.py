"""The champion over HTTP: predictions, their text, their neighbours.

`lvm serve --model models/champion` starts it; `Client` and `AsyncClient` talk to it.
"""

from lvm.serving.client import AsyncClient, Client, Prediction, ServingError

__all__ = ["AsyncClient", "Client", "Prediction", "ServingError"]
