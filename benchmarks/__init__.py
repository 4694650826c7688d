"""What batchland's figures come from. Each benchmark is a command: `python -m benchmarks.NAME --help`."""
