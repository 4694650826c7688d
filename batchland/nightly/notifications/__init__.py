"""Report a night to others: a command, a heartbeat URL, Prometheus metrics."""
