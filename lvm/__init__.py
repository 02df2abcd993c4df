"""Latent vector models: predict the embedding of a document's next chunk from the last few."""

__version__ = "0.1.0"
