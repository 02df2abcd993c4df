"""Documents to chunks, chunks to vectors, vectors to windows."""
