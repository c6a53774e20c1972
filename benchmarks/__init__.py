"""Benchmarks: ``make bench`` measures this machine and prints a table (docs/benchmarks.md)."""
