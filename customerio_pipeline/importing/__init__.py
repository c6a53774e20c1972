"""Importing: events of other origin become landing files, as the receiver's sealer writes them."""
