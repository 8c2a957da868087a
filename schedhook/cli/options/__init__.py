"""Options that several commands share, one module for each thing that they choose."""
