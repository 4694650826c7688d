"""Statistics over the nights of a job: measurements, findings, plots and the page."""
