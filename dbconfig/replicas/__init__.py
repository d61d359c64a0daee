"""Reading sessions over several servers."""
