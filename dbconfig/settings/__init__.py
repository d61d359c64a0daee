"""What may be written: settings, validated and frozen."""
