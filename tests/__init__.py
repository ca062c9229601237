"""The tests: `unit`, `contract`, `scenarios`, `e2e`, and the fixtures that they share."""
