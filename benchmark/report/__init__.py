"""Turn the long table into pages, tables and plots; ``write.py`` writes all files of a report."""
