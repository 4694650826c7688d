"""List image files, read them and turn their bytes into pixels."""
