"""What is released, installed as sites install it."""
