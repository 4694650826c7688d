"""Benchmarks that batchland's figures come from. Each is a command: `python -m benchmarks.NAME --help`."""
