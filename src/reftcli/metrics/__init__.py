"""Statistics of graded completions: pure functions of plain numbers, each with its formula and source."""
