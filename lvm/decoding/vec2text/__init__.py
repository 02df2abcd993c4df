"""The library vec2text as a decoder (optional)."""
