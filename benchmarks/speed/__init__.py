"""Speed and memory, beside a peer or the plain form in the same run."""
