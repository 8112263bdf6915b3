"""Typed configuration: one schema file an area names every option, `load.py` merges schema, YAML and `key=value`."""
