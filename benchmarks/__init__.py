"""Measured figures, each from one command; results in docs/results/."""
