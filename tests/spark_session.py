"""A small Spark session of the tests, which `data.spark.plays.connect` finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from data.spark import plays as spark_plays


@contextmanager
def small_session(master: str, log_level: str = "ERROR", more: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A session that starts fast and runs small queries fast, until the end of the block."""
    from pyspark.sql import SparkSession

    settings = dict.fromkeys(("ui.enabled", "sql.adaptive.enabled", "sql.codegen.wholeStage"), "false")
    settings |= {"log.level": log_level, "sql.shuffle.partitions": "2", "sql.codegen.factoryMode": "NO_CODEGEN"}
    settings |= {"driver.host": "localhost", "driver.extraJavaOptions": "-XX:TieredStopAtLevel=1", **(more or {})}
    builder = SparkSession.builder.master(master)
    for key, value in settings.items():
        builder = builder.config(f"spark.{key}", value)
    session = builder.getOrCreate()
    spark_plays.connect(None)  # with its settings
    yield session
    session.stop()
