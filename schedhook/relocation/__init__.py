"""The pipeline: request, plan, move, verify, report."""
