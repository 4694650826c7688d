"""`python -m batchland`."""

from batchland.cli.main import main

main(prog_name="batchland")
