"""MySQL, MariaDB, and their drivers."""
