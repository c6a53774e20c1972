"""Dagster: definitions, the drain run and its sensor, checks; thin around what loads."""
