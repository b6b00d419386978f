"""What is faster here than in the stock library, by how much: both on the same work, in turn, in one run."""
