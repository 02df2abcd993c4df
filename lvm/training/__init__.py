"""Training a predictor."""
