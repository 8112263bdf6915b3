"""Song pairs by collaborative filtering, and the posterior check that keeps what users confirmed."""
