"""Who is found, and how well: ours beside baselines and published methods on real data."""
