"""What every Moodline worker agrees on: messages, seams, settings, metrics and errors."""
