"""Invents viewers: a catalogue, their behaviours, a seeded simulator, and the publisher of its events."""
