"""What a scheduler's hook runs (run.py, delivery.py: built-in modules only), and what reads it."""
