"""What cameras and pushed streams have in common: the newest frame counts."""
