"""From records to conclusions: tables, leaderboards, comparisons, regressions."""
