"""Statistics that know nothing of records: paired tests, rank agreement, shifts."""
