"""The CustomResourceDefinition, made from the models: `python -m swarm_api.crd` writes it and what follows from it."""
