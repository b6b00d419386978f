"""The toy world: a small place in which the whole method is true."""
