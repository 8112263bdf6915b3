"""Readers of public data sets: each writes a data set, as published, as a dataset folder (docs/data.md)."""
