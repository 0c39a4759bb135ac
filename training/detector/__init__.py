"""Training of Moodline's own face detector: labels from a teacher, network, training, measurement, export."""
