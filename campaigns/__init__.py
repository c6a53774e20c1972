"""Long runs that look for what tests are too short to find: ``python -m campaigns.load_crash``."""
