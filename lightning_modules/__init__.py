"""Thin wiring of model + objective + optimiser, one file a task."""
