"""Runs on disk: the record's schema and the store. No torch in here."""
