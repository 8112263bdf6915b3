"""The data contract of docs/data.md: which columns, which rows, and what is refused, skipped and counted."""
