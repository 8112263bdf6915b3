"""The commands, one file each: world prepare embed zeroshot probe index audience evaluate export service search."""
