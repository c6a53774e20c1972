"""The landing zone: immutable Parquet files that hold every accepted delivery, the truth."""
