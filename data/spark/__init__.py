"""Plays and song pairs by Apache Spark, for logs beyond one machine."""
