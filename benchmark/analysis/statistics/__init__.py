"""Statistics that know nothing of records: paired tests, ranks, agreement, shifts."""
