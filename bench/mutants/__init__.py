"""Mutation testing: are the tests sharp enough to see a small mistake? `make mutants`."""
