"""What a pool says about itself: counters, statistics, leaks, timeouts."""
