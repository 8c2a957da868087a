"""What hooks run (run.py, delivery.py, fallback.py: built-in modules only), and its readers."""
