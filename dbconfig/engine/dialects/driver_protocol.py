"""What the engine half asks of a driver."""
