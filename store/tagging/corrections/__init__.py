"""Predictions as a person corrected them, read as the plan of a run."""
