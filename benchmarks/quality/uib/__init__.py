"""The published protocol of the interest-boundary paper, and the methods it compares."""
