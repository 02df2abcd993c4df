"""Serving the champion over HTTP: predictions, their nearest real chunks and their text.

`lvm serve --model models/champion` starts the server; `Client` and `AsyncClient` talk to it. Importing this package loads the
clients only, without torch.
"""

from lvm.serving.client import AsyncClient, Client, ClientPrediction, ServingError

__all__ = ["AsyncClient", "Client", "ClientPrediction", "ServingError"]
