"""The admin process: metrics, health and what manages integrations, on a listener of its own.

The receiver starts it by name and imports nothing of it. It takes no delivery, opens the warehouse
for reading only and for moments, and nothing that takes deliveries or loads them waits for it.
"""
