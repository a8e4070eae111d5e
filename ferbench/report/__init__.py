"""Stored runs in, tables and text out. Knows runs and published figures, never models: no torch."""
