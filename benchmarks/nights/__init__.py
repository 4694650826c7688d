"""Nights of photos that are clean or spoiled: how many faults the monitor finds, and how often it is wrong."""
