"""Run a job file for one night, and keep its record."""
