"""From trained runs to vectors, indexes and audiences."""
