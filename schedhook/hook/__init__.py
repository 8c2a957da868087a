"""What a scheduler's hook runs: built-in modules only."""
