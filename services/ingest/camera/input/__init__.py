"""What all camera protocols need: addresses that may be reached, log-in, decoding."""
