"""From the long table to files: pages, tables and plots. ``write.py`` writes all of them."""
