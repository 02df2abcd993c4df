"""Metrics of a model beside those of every baseline, with intervals."""
