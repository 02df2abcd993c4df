"""The stages of the nightly validation."""
