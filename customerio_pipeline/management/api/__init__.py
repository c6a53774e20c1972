"""The JSON API under ``/api``: what the commands and the page do, for programs."""
