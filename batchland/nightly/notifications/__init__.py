"""Tell others how a night ended: a command, a heartbeat URL, Prometheus metrics."""
