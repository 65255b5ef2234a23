"""A job as pods of a cluster."""
