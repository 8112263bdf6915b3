"""LightningDataModules: an open catalogue, and one a task (clip, i2i, boundary, masked_lm); epochs cut into batches."""
