"""Input of every kind, sound and spoilt, through the reading and cutting of extraction."""
