"""The nightly runner: job files, one run per night, its record, and what the nights add up to."""
