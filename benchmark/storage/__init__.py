"""Files on disk: the content-addressed store, records, merging, export."""
