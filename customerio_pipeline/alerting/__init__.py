"""Telling people of trouble: what is told, once, and by which ways."""
