"""The contract between users, operator and trainer: the custom resource, the environment, the report.

Nothing here imports torch, kopf or kubernetes, so that both halves (and tools) can share it at no cost.
"""
