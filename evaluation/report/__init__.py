"""The evaluation as one HTML file that opens offline."""
