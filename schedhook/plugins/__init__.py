"""The plug-in API and its manager."""
