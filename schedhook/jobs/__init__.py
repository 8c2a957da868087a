"""Jobs on this host: finding them, their residency, their metrics."""
