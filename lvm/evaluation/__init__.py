"""Evaluation of models beside baselines, with intervals over documents."""
