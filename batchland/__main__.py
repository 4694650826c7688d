"""`python -m batchland`."""

from batchland.cli import main

main(prog_name="batchland")
