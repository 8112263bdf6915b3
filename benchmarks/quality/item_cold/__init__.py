"""Cold-start methods beside each other: new items that nobody has played."""
