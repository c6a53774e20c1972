"""What people use instead, and what no loader can exceed; each side runs in a fresh process.

``python -m benchmarks.peers SIDE …`` loads once, measures itself and prints what it found as JSON.
The packages come with ``make bench-install``.
"""
