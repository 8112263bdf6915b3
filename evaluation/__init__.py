"""Who is found, beside baselines: comparisons, outcomes, calibration, and the report."""
