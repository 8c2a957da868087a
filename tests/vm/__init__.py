"""A virtual machine with several NUMA nodes, for the tests and the demonstration."""
