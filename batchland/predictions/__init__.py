"""Predictions as rows and files: schema, writer, reader, and where the files are stored."""
