"""The verbs, one file each: world prepare embed index audience evaluate export."""
