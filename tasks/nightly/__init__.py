"""The stages of the nightly validation, a file each."""
