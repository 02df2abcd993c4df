"""Text to vectors, by a recipe that says exactly how."""
