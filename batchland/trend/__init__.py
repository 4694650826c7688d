"""What the nights of a job add up to: measurements, findings, plots and the page."""
