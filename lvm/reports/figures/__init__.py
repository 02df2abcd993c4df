"""Figures as PNG files, by subject."""
