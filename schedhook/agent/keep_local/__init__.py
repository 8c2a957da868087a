"""Keep local: off-node memory of jobs is found and brought home without being asked."""
