"""Settings: the accepted keys and values, validated and frozen."""
