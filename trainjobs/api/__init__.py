"""The job as users write it: models, defaults, rules, errors. Imports pydantic and the standard library, nothing else."""
