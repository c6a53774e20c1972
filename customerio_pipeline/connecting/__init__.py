"""Setting up Customer.io itself: its reporting webhook that calls one of our URLs."""
