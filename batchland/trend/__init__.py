"""The trend of a job over its nights: measurements, findings, plots and the page."""
