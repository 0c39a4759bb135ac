"""Moodline's workers, one package per stage, and the composition root that wires them."""
