"""The agent: hooks' events, the watcher, and following jobs."""
