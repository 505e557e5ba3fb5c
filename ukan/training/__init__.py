"""The engine, blind to the task."""
