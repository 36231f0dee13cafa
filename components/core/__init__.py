"""Shared infrastructure: errors, settings sections, hashes, output folders, locks, processes, text."""
