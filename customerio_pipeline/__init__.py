"""Customer.io reporting webhooks into a warehouse, exactly once."""

__version__ = "0.1.0"
