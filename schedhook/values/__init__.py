"""Values, errors and settings that every other room uses."""
