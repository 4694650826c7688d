"""Engines turn images into rows: `local` with threads in this process, `ray` on a Ray cluster."""
