"""Processes: the composition root that wires workers, and what runs them."""
