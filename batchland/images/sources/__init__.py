"""List images and read their bytes: folders, URLs, tar files, Parquet tables and lists."""
