"""Typed configuration: `schema.py` names every option, `load.py` merges schema, YAML and `key=value`."""
