"""Draw conclusions from records: tables, leaderboards, comparisons, regressions."""
