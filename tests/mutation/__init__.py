"""Does the suite notice a change of the code? `make mutants` tries."""
