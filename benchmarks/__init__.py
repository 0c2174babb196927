"""Speed, measured side by side with alternatives: `make bench`."""
