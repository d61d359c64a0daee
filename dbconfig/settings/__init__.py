"""Settings: what may be written, validated and frozen."""
