"""The view of a row of a table: ranked bars, what-if controls, trust tests."""
