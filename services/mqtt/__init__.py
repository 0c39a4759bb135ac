"""States, points and alerts of streams on an MQTT broker, with Home Assistant's discovery. Needs the extra `mqtt`."""
