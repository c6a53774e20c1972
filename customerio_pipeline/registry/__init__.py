"""Integrations, their webhook URLs and their state, in SQLite or PostgreSQL."""
