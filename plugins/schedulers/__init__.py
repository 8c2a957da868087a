"""The adapters for batch schedulers that ship."""
