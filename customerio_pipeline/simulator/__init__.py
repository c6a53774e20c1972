"""A stand-in for Customer.io: realistic reporting events, and a sender that acts like theirs."""
