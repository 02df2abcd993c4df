"""Vectors that exist already, made into a dataset: what they are read from, the checks, their order, and the writing."""
