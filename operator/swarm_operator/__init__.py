"""Runs SwarmTrainingJobs: a pure plan, and backends that carry it out."""
