"""From Parquet tables to batches: the data contract, prepared folders, audio, text and the DataModules."""
