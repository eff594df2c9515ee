"""From a suite to the cells and stages of a plan. Pure: nothing is loaded, run or written here."""
