"""The bench: what it says is what it measured."""
