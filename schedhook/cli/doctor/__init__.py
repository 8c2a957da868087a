"""What `schedhook doctor` checks."""
