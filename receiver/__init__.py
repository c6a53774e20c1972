"""The webhook receiver: authenticates, makes durable, answers, and seals into the landing zone."""
