"""The public functions: attribute, checkup, evaluate, compare, sweep, save and load."""
