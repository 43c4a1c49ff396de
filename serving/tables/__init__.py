"""Read and write tables: CSV, JSON lines, Parquet, Arrow."""
