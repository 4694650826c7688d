"""What turns images into rows: threads in this process, or Ray."""
