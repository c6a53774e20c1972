"""Tests, each of a promise; `make test` runs them all."""
