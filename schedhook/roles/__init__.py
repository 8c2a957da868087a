"""What plug-ins implement: backends, schedulers and strategies."""
