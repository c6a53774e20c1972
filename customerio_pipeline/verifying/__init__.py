"""Proof that nothing is missing: what was acknowledged, landed and loaded, counted and compared."""
