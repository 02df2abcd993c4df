"""From documents to the dataset of record: sources, chunks, splits, Parquet."""
