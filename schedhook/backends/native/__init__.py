"""The C core and the backend that drives it."""
